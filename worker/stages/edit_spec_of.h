// What a job's edit stage is to do, from its job file and the direction it chose.
#ifndef BEARING_WORKER_STAGES_EDIT_SPEC_OF_H_
#define BEARING_WORKER_STAGES_EDIT_SPEC_OF_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/edit_spec.h"
#include "worker/job_context.h"
#include "worker/stages/chosen_direction.h"

namespace bearing::worker {

// The plans of the forms that the job file asks for (jobs/edit_fields.h).
struct JobEdit {
  edit::EditSpec checkpoint;  // The removal; with edit.induce the addition.
  edit::EditSpec removal;     // The same without an addition: what the small forms hold.
};

// Before long work: does the model take the edit of the job file, whatever the direction will be? Unimplemented or
// InvalidArgument naming the field or tensor. Collective.
absl::Status CheckEditFits(JobContext& context);

// Can every form hold a direction of the chosen layer? Of direction.safetensors; collective.
absl::Status CheckChosenLayer(JobContext& context);

// Collective. InvalidArgument naming the field for strengths that do not fit the model's layers.
absl::StatusOr<JobEdit> JobEditOf(JobContext& context, const ChosenDirection& chosen);

// Does the edited model do what ablation of the activations does? Not with other strengths than 1, in a part of the layers,
// with norms preserved, or where something is added.
bool IsWholeRemoval(const bearing::v1::Edit& edit);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_EDIT_SPEC_OF_H_
