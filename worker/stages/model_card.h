// What a job's edited checkpoint says about itself: README.md (model card) and bearing.json (for programs).
#ifndef BEARING_WORKER_STAGES_MODEL_CARD_H_
#define BEARING_WORKER_STAGES_MODEL_CARD_H_

#include <string>

#include "absl/status/status.h"
#include "worker/edit/edit_record.h"
#include "worker/job_context.h"

namespace bearing::worker {

// Writes both files into `folder`. Rank 0. No local path, host or user name goes in.
absl::Status WriteModelCard(const JobContext& context, const edit::EditPlan& plan, const edit::EditSpec& spec,
                            const edit::EditOutcome& outcome, const std::string& folder);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_MODEL_CARD_H_
