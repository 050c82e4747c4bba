// The forms of a job's edit that are no checkpoint (docs/edit.md, "Forms"): small, made by rank 0.
#ifndef BEARING_WORKER_STAGES_SMALL_FORMS_H_
#define BEARING_WORKER_STAGES_SMALL_FORMS_H_

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/edit/edit_record.h"
#include "worker/stages/chosen_direction.h"
#include "worker/stages/edit_spec_of.h"
#include "worker/stages/stages.h"

namespace bearing::worker {

// Writes those that edit.form names, in place of what an interrupted run left, and returns their files. Rank 0.
absl::StatusOr<StageFiles> WriteSmallForms(const JobContext& context, const JobEdit& edit, const ChosenDirection& chosen,
                                           const edit::RecordInputs& record);

// Reads them back: by form, what was found. An adapter was measured before its folder got its name; its record says how.
// DataLoss naming the file. Rank 0.
absl::StatusOr<nlohmann::json> VerifySmallForms(const JobContext& context, const JobEdit& edit, const ChosenDirection& chosen);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_SMALL_FORMS_H_
