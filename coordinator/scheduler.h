// Every change of a job goes through here: it is decided under one lock, committed to the store, and only then told to
// watchers and to the caller.
//
// A lease gives one worker group a job under a fencing number (the attempt). It ends when no heartbeat came for the lease time,
// counted on the steady clock; the job then goes back to its place in the queue, or fails after the last attempt. A restart
// keeps leases: their time starts anew. A group that asks for work holds none: what it held before is lost at that moment.
//
// Thread-safe. Store, feed, clock, checker and logger must outlive it. Store errors come through as they are (sqlite.h).
#ifndef BEARING_COORDINATOR_SCHEDULER_H_
#define BEARING_COORDINATOR_SCHEDULER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "bearing/v1/worker_service.pb.h"
#include "coordinator/clock.h"
#include "coordinator/job_checker.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"
#include "coordinator/metrics.h"
#include "coordinator/path_policy.h"

namespace spdlog {
class logger;
}

namespace bearing::coordinator {

struct SchedulerOptions {
  std::chrono::seconds lease_time{30};
  // The most a job may ask for, and what it gets when it asks for none.
  int max_attempts = 3;
  // A waiting job rises by one priority each time this has gone by.
  std::chrono::seconds priority_rise{600};
  // A group that holds a model may take a later job of that model only from those that have waited less than this.
  std::chrono::seconds affinity_patience{60};
  // Ended jobs are removed after this long (0 = never), and the oldest beyond so many (0 = no limit). Their artifacts stay.
  std::chrono::hours keep_ended{0};
  int64_t most_ended = 0;
};

// What a job gets besides its spec.
struct Submission {
  RequestKey request = {};
  std::string job_id = {};  // Empty = a drawn name.
  std::string owner = {};
};

struct SchedulerParts {
  JobStore* store;
  JobFeed* feed;
  const JobChecker* checker;
  const Clock* clock;
  RandomSource random;
  spdlog::logger* logger;
  Metrics* metrics = nullptr;  // May be missing.
  PathPolicy paths = {};       // Of what is handed out: links may have changed since the job was created.
};

class Scheduler {
 public:
  // Takes up the leases that the store remembers.
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(const SchedulerOptions& options, SchedulerParts parts);

  // The job that `request` made before; nullopt if none. AlreadyExists when it came with another body.
  absl::StatusOr<std::optional<StoredJob>> FindRequest(const RequestKey& request);

  // Queues a checked spec under a new name, or returns the job that the request made before. AlreadyExists when the job_id is
  // taken.
  absl::StatusOr<StoredJob> Submit(const bearing::v1::JobSpec& spec, const Submission& submission);

  // NotFound, FailedPrecondition for an ended job.
  absl::StatusOr<StoredJob> Cancel(const std::string& name);

  // The oldest job for a group of this size, or nullopt. Jobs whose model cannot be read, cut or held by the group fail here.
  absl::StatusOr<std::optional<bearing::v1::Lease>> Acquire(const bearing::v1::WorkerGroup& group);

  // Keeps the lease; returns whether to cancel. NotFound for an unknown job, Aborted when the lease is not (any more) the
  // group's.
  absl::StatusOr<bool> Heartbeat(const bearing::v1::HeartbeatRequest& request);

  // The same with progress and lines for the job's log.
  absl::StatusOr<bool> ReportProgress(const bearing::v1::ReportProgressRequest& request);

  // Ends the lease. Ok again for the same outcome; else as Heartbeat.
  absl::Status Complete(const bearing::v1::CompleteRequest& request);

  // A launcher says that a group is gone: its lease, if it has one, ends now.
  absl::Status ReportExit(const bearing::v1::ReportExitRequest& request);

  // Removes the record of an ended job. FailedPrecondition when it has not ended.
  absl::Status Delete(const std::string& name);

  // Ends the leases whose time is over. Called every so often.
  void ExpireLeases();

  // Removes ended jobs that are not to be kept, some at a time. Called every so often.
  void RemoveOutdated();

  // Leases that are held now.
  int64_t NumLeases();

  // Waits until the queue has grown since `seen`, at most `timeout`, and not at all once closed. Returns the new mark.
  uint64_t WaitForWork(uint64_t seen, std::chrono::milliseconds timeout);
  uint64_t WorkMark();

  // Hands out no lease any more and wakes who waits.
  void Close();
  bool closed();

 private:
  struct Held {
    std::string group_id;
    int attempt = 0;
    SteadyTime expires;
    SteadyTime reported;  // When progress came last.
    // Log lines of the attempt that are stored; -1 = unknown, after a restart.
    int64_t lines = 0;
  };
  // A group that asked for work, and the jobs that do not fit it.
  struct Group {
    SteadyTime seen;
    std::set<int64_t> misfits;
  };

  Scheduler(const SchedulerOptions& options, SchedulerParts parts) : options_(options), parts_(std::move(parts)) {}

  // Stores, with lines for the log, then tells the watchers.
  absl::Status Record(StoredJob* job, LogLines lines) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RecordLines(const StoredJob& job, LogLines lines) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Records a change of state, which is also logged and may be work for a waiting group.
  absl::Status Commit(StoredJob* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The job behind a lease, or why the caller does not hold it.
  absl::StatusOr<StoredJob> HeldJob(const std::string& group_id, const std::string& job_name, int attempt)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status EndLease(const std::string& job_name, const bearing::v1::LostAttempt& how) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The line that a change of state leaves in the job's log.
  LogLines LinesOf(const StoredJob& job) const;
  // Notes that the job does not fit the group; true when it fits no group that has asked for work lately.
  bool FitsNobody(int64_t job_id, const bearing::v1::WorkerGroup& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<int64_t> MisfitsOf(const bearing::v1::WorkerGroup& group);
  absl::Status EndLeasesOf(const std::string& group_id, const bearing::v1::LostAttempt& how)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string NewName(const std::string& prefix) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts or fails the queued job by its plan; false when the job has changed since it was planned.
  absl::StatusOr<std::optional<bearing::v1::Lease>> HandOut(StoredJob job, const bearing::v1::WorkerGroup& group,
                                                            const absl::StatusOr<ModelPlan>& plan)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SchedulerOptions options_;
  const SchedulerParts parts_;
  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t work_mark_ ABSL_GUARDED_BY(mutex_) = 0;
  // By job name.
  std::unordered_map<std::string, Held> leases_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Group> groups_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_SCHEDULER_H_
