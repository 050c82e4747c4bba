// The durable record of all jobs: one SQLite file (WAL, synchronous FULL). A call that returns Ok has committed.
//
// One process owns the file: a second coordinator on it is refused. Jobs keep the order they were inserted in (`id`).
// Thread-safe. Errors as in sqlite.h; NotFound for an unknown name; DataLoss for a row that does not parse.
#ifndef BEARING_COORDINATOR_JOB_STORE_H_
#define BEARING_COORDINATOR_JOB_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "bearing/v1/job.pb.h"
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
  std::string request_id;
  std::string body_hash;
};

class JobStore {
 public:
  // Makes missing folders, then opens or makes the file. Unavailable when another process has it.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::string& path);

  // Adds a job, and its request when it has an id, in one transaction. Fills id and sequence. AlreadyExists when the name or
  // the request_id is taken.
  absl::Status Insert(StoredJob* job, const RequestKey& request);

  // Writes `job` over the row that has its sequence, then raises the sequence. Aborted when the row has moved on or is final.
  absl::Status Update(StoredJob* job);

  absl::StatusOr<StoredJob> Get(const std::string& name);

  // The job that a request made, with the hash of its body; nullopt if none did.
  struct RequestedJob {
    std::string body_hash;
    StoredJob job;
  };
  absl::StatusOr<std::optional<RequestedJob>> FindRequest(const std::string& request_id);

  // Newest first, ids below `before_id` (0 = from the newest), only `state` unless that is unspecified.
  absl::StatusOr<std::vector<StoredJob>> List(bearing::v1::JobState state, int64_t before_id, int limit);

  // The oldest queued job that takes any number of ranks or just this one.
  absl::StatusOr<std::optional<StoredJob>> OldestQueued(int ranks);

  // Jobs that a worker group holds: RUNNING and CANCELLING.
  absl::StatusOr<std::vector<StoredJob>> Held();

 private:
  explicit JobStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}

  absl::Mutex mutex_;
  std::unique_ptr<Database> database_ ABSL_PT_GUARDED_BY(mutex_);
};

bool IsFinal(bearing::v1::JobState state);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOB_STORE_H_
