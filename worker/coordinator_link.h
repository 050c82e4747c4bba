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
#include "rpc/client_security.h"
#include "worker/job_context.h"
#include "worker/task_runner.h"

namespace bearing::worker {

// One leased job: the observer its stages report to. A thread of its own keeps the lease, at a third of its time to live, and
// reports progress and log lines soon after a change. Stages, notes and the outcome are lines of the job's log by themselves.
class LeasedJob : public JobObserver {
 public:
  virtual const bearing::v1::Lease& lease() const = 0;
  // Ends the lease with what became of the job. The coordinator's answer: Aborted when another attempt has it by now.
  virtual absl::Status Complete(const TaskOutcome& outcome) = 0;
};

class CoordinatorLink {
 public:
  virtual ~CoordinatorLink() = default;

  // InvalidArgument or NotFound for files of `security` that cannot be used. Connects later.
  static absl::StatusOr<std::unique_ptr<CoordinatorLink>> Connect(const std::string& address,
                                                                  const rpc::ClientSecurity& security,
                                                                  const bearing::v1::WorkerGroup& group);

  // Waits for a job up to `wait`; null when none came. Unavailable when the coordinator cannot be reached. `model_key` (of the
  // lease before) says which model the group still holds; empty = none.
  virtual absl::StatusOr<std::unique_ptr<LeasedJob>> Acquire(absl::Duration wait, const std::string& model_key) = 0;
};

}  // namespace bearing::worker

#endif  // BEARING_WORKER_COORDINATOR_LINK_H_
