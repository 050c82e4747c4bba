// Can this job run? Everything the coordinator knows about prompts and models stands behind this interface.
#ifndef BEARING_COORDINATOR_JOB_CHECKER_H_
#define BEARING_COORDINATOR_JOB_CHECKER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"

namespace bearing::coordinator {

// How a model is cut over a group, and the weights each rank then holds.
struct ModelPlan {
  bearing::v1::ShardPlan plan;
  // What each rank needs for weights at the least, in the type the job computes in: all of its slice, or, where layers may be
  // streamed, two layers' (the plan's own figures are in the type of the disk).
  std::vector<int64_t> compute_bytes;
};

// Thread-safe. Reads files; may take as long as the disk does.
class JobChecker {
 public:
  virtual ~JobChecker() = default;

  // Fills the defaults of `spec`, then checks fields, files, model and tokenizer. `proceed` is asked between two steps; its
  // error ends the check. InvalidArgument "field: message; ..." for what the job file says, FailedPrecondition "field: message"
  // for a model that cannot run.
  virtual absl::Status Check(bearing::v1::JobSpec* spec, absl::FunctionRef<absl::Status()> proceed) const = 0;

  // The plan of the job's model for this many ranks. FailedPrecondition when the model cannot be read or cut that way.
  virtual absl::StatusOr<ModelPlan> Plan(const bearing::v1::JobSpec& spec, int ranks) const = 0;
};

// The checker that looks at the real files, through jobs/ and sharding/.
std::unique_ptr<JobChecker> MakeFileJobChecker();

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_JOB_CHECKER_H_
