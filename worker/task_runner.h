// Runs one leased job on all ranks: opens the model, claims the output folder, runs the stages that are not done yet, writes
// the manifest. The only place where exceptions of libtorch and of the libraries become a Status.
#ifndef BEARING_WORKER_TASK_RUNNER_H_
#define BEARING_WORKER_TASK_RUNNER_H_

#include <string>

#include "absl/status/statusor.h"
#include "bearing/v1/worker_service.pb.h"
#include "worker/comm/communicator.h"
#include "worker/job_context.h"
#include "worker/kept_model.h"
#include "worker/shared_stages.h"

namespace bearing::worker {

// What became of a job. `error_stage` says where it stopped.
struct TaskOutcome {
  absl::Status status;
  bearing::v1::JobResult result;  // Rank 0, when ok.
  bearing::v1::Stage error_stage = bearing::v1::STAGE_UNSPECIFIED;
};

// What a cancelled job leaves: the artifacts of its finished stages always, for whoever submits it again; what the stage had
// begun to write (a staged checkpoint, files staged in a bucket) only where that is asked for.
enum class WhenCancelled { kKeepStaged, kDropStaged };

// What a group has of the jobs before.
struct GroupMemory {
  KeptModel model;      // Used where it is the job's model; afterwards the job's model if that is still loaded.
  SharedStages stages;  // Rank 0.
};

// Collective. `lease` and `observer` are read on rank 0 only. `memory` may be null.
TaskOutcome RunTask(comm::Communicator& comm, const bearing::v1::Lease* lease, JobObserver* observer,
                    GroupMemory* memory = nullptr, WhenCancelled when_cancelled = WhenCancelled::kKeepStaged);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_TASK_RUNNER_H_
