// What a job's edited checkpoint says about itself: README.md (model card) and bearing.json (for programs).
#ifndef BEARING_WORKER_STAGES_MODEL_CARD_H_
#define BEARING_WORKER_STAGES_MODEL_CARD_H_

#include <string>

#include "absl/status/status.h"
#include "worker/edit/edit_record.h"
#include "worker/job_context.h"

namespace bearing::worker {

// What a job's checkpoint or adapter says about itself, but for the edit: the direction and its scores. Rank 0.
absl::StatusOr<edit::RecordInputs> RecordOfJob(const JobContext& context);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_MODEL_CARD_H_
