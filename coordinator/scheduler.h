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
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "bearing/v1/worker_service.pb.h"
#include "coordinator/clock.h"
#include "coordinator/job_checker.h"
#include "coordinator/job_feed.h"
#include "coordinator/job_store.h"

namespace spdlog {
class logger;
}

namespace bearing::coordinator {

struct SchedulerOptions {
  std::chrono::seconds lease_time{30};
  int max_attempts = 3;
};

struct SchedulerParts {
  JobStore* store;
  JobFeed* feed;
  const JobChecker* checker;
  const Clock* clock;
  RandomSource random;
  spdlog::logger* logger;
};

class Scheduler {
 public:
  // Takes up the leases that the store remembers.
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(const SchedulerOptions& options, SchedulerParts parts);

  // The job that `request` made before; nullopt if none. AlreadyExists when it came with another body.
  absl::StatusOr<std::optional<StoredJob>> FindRequest(const RequestKey& request);

  // Queues a checked spec under a new name, or returns the job that the request made before.
  absl::StatusOr<StoredJob> Submit(const bearing::v1::JobSpec& spec, const RequestKey& request);

  // NotFound, FailedPrecondition for an ended job.
  absl::StatusOr<StoredJob> Cancel(const std::string& name);

  // The oldest job for a group of this size, or nullopt. Jobs whose model cannot be read, cut or held by the group fail here.
  absl::StatusOr<std::optional<bearing::v1::Lease>> Acquire(const bearing::v1::WorkerGroup& group);

  // Keeps the lease; returns whether to cancel. NotFound for an unknown job, Aborted when the lease is not (any more) the
  // group's.
  absl::StatusOr<bool> Heartbeat(const bearing::v1::HeartbeatRequest& request);

  // Ends the lease. Ok again for the same outcome; else as Heartbeat.
  absl::Status Complete(const bearing::v1::CompleteRequest& request);

  // Ends the leases whose time is over. Called every so often.
  void ExpireLeases();

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
  };

  Scheduler(const SchedulerOptions& options, SchedulerParts parts) : options_(options), parts_(std::move(parts)) {}

  // Stores, then tells the watchers.
  absl::Status Record(StoredJob* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Records a change of state, which is also logged and may be work for a waiting group.
  absl::Status Commit(StoredJob* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The job behind a lease, or why the caller does not hold it.
  absl::StatusOr<StoredJob> HeldJob(const std::string& group_id, const std::string& job_name, int attempt)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status EndLease(const std::string& job_name, std::string_view why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status EndLeasesOf(const std::string& group_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
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
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_SCHEDULER_H_
