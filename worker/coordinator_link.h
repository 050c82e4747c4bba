// Rank 0's line to the coordinator: leases jobs, keeps the lease alive in the background, reports, ends the lease.
#ifndef BEARING_WORKER_COORDINATOR_LINK_H_
#define BEARING_WORKER_COORDINATOR_LINK_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bearing/v1/worker_service.pb.h"
#include "worker/job_context.h"
#include "worker/task_runner.h"

namespace bearing::worker {

// One leased job: the observer its stages report to. A thread of its own sends heartbeats, at a third of the lease's time to
// live and soon after a change.
class LeasedJob : public JobObserver {
 public:
  virtual const bearing::v1::Lease& lease() const = 0;
  // Ends the lease with what became of the job. The coordinator's answer: Aborted when another attempt has it by now.
  virtual absl::Status Complete(const TaskOutcome& outcome) = 0;
};

class CoordinatorLink {
 public:
  virtual ~CoordinatorLink() = default;

  static std::unique_ptr<CoordinatorLink> Connect(const std::string& address, const bearing::v1::WorkerGroup& group);

  // Waits for a job up to `wait`; null when none came. Unavailable when the coordinator cannot be reached.
  virtual absl::StatusOr<std::unique_ptr<LeasedJob>> Acquire(absl::Duration wait) = 0;
};

}  // namespace bearing::worker

#endif  // BEARING_WORKER_COORDINATOR_LINK_H_
