// The durable record of all jobs: one SQLite file (WAL, synchronous FULL). A call that returns Ok has committed.
//
// One process owns the file: a second coordinator on it is refused. Jobs keep the order they were inserted in (`id`).
// Failpoints, each with ".before" and ".after" its commit: insert, delete, logs, and update.STATE of the state written.
// Thread-safe. Errors as in sqlite.h; NotFound for an unknown name; DataLoss for a row that does not parse.
#ifndef BEARING_COORDINATOR_JOB_STORE_H_
#define BEARING_COORDINATOR_JOB_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "bearing/v1/job.pb.h"
#include "bearing/v1/jobs_service.pb.h"
#include "coordinator/failpoint.h"
#include "coordinator/sqlite.h"

namespace bearing::coordinator {

struct StoredJob {
  int64_t id = 0;
  // 1 after Insert, one more with every Update.
  int64_t sequence = 0;
  // The worker group that held the last lease; empty if none did.
  std::string group_id;
  bearing::v1::Job job;
};

// A client's request_id and the hash of the body it came with.
struct RequestKey {
  std::string request_id = {};
  std::string body_hash = {};
};

// What a list shows. Empty = everything.
struct JobFilter {
  bearing::v1::JobState state = bearing::v1::JOB_STATE_UNSPECIFIED;
  std::map<std::string, std::string> labels;
};

// Who asks for work, and how waiting counts.
struct QueueQuery {
  int ranks = 0;
  // Model that the group holds; empty = none.
  std::string model_key = {};
  int64_t now_ms = 0;
  // A job rises by one priority each time it has waited this long.
  int64_t rise_ms = 600'000;
  // A job that has waited this long is not passed over for another of the group's model.
  int64_t patience_ms = 60'000;
  // Ids that this group cannot run.
  std::vector<int64_t> skip = {};
};

using LogLines = std::vector<bearing::v1::LogLine>;

class JobStore {
 public:
  // Makes missing folders, then opens or makes the file. Unavailable when another process has it.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::string& path, Failpoint failpoint = {});

  // Adds a job with lines for its log, and its request when it has an id, in one transaction. Fills id, sequence and the lines'
  // numbers. AlreadyExists when the name or the request_id is taken.
  absl::Status Insert(StoredJob* job, const RequestKey& request, LogLines* lines = nullptr);

  // Writes `job` over the row that has its sequence, with lines for its log, then raises the sequence. Aborted when the row has
  // moved on or is final.
  absl::Status Update(StoredJob* job, LogLines* lines = nullptr);

  absl::StatusOr<StoredJob> Get(const std::string& name);

  // Removes a job with its request, labels and log. The caller has checked that it is final.
  absl::Status Delete(int64_t id);

  // Ids of ended jobs that are over: those that ended before `before_ms`, and the oldest beyond `keep` of them (0 = all are
  // kept). At most `limit`.
  absl::StatusOr<std::vector<int64_t>> Outdated(int64_t before_ms, int64_t keep, int limit);

  // The job that a request made, with the hash of its body; nullopt if none did.
  struct RequestedJob {
    std::string body_hash;
    StoredJob job;
  };
  absl::StatusOr<std::optional<RequestedJob>> FindRequest(const std::string& request_id);

  // Newest first, ids below `before_id` (0 = from the newest).
  absl::StatusOr<std::vector<StoredJob>> List(const JobFilter& filter, int64_t before_id, int limit);

  // The queued job that is due: the highest priority, waiting counted in; within one the oldest. See QueueQuery.
  absl::StatusOr<std::optional<StoredJob>> NextQueued(const QueueQuery& query);

  // Jobs that a worker group holds: RUNNING and CANCELLING.
  absl::StatusOr<std::vector<StoredJob>> Held();

  // Jobs by state.
  absl::StatusOr<std::map<bearing::v1::JobState, int64_t>> CountByState();

  // When the job that has waited longest was created, in milliseconds; 0 = none waits.
  absl::StatusOr<int64_t> OldestQueuedSince();

  // Adds lines to a job's log, fills their numbers, and drops the oldest over kLongestLog.
  static constexpr int kLongestLog = 1000;
  absl::Status AppendLogs(int64_t id, LogLines* lines);

  // Lines after `after`, oldest first, at most `limit`; with `tail`, of the last so many.
  absl::StatusOr<LogLines> ReadLogs(int64_t id, int64_t after, int tail, int limit);

 private:
  JobStore(std::unique_ptr<Database> database, Failpoint failpoint)
      : failpoint_(std::move(failpoint)), database_(std::move(database)) {}

  // Commits between the failpoints of this name.
  absl::Status Commit(Transaction* transaction, const std::string& name);
  absl::Status InsertLogLines(int64_t id, LogLines* lines) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Failpoint failpoint_;
  absl::Mutex mutex_;
  std::unique_ptr<Database> database_ ABSL_PT_GUARDED_BY(mutex_);
};

bool IsFinal(bearing::v1::JobState state);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOB_STORE_H_
