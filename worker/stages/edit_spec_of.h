// What a job's edit stage is to do, from its job file and the direction it chose.
#ifndef BEARING_WORKER_STAGES_EDIT_SPEC_OF_H_
#define BEARING_WORKER_STAGES_EDIT_SPEC_OF_H_

#include "absl/status/statusor.h"
#include "worker/edit/edit_spec.h"
#include "worker/job_context.h"

namespace bearing::worker {

// Collective. InvalidArgument naming the field for strengths that do not fit the model's layers.
absl::StatusOr<edit::EditSpec> EditSpecOf(JobContext& context);

// Does the edited model do what ablation of the activations does? Not with other strengths than 1, in a part of the layers, or
// with norms preserved.
bool IsWholeRemoval(const bearing::v1::Edit& edit);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_EDIT_SPEC_OF_H_
