// The `edit` part of a job file: its forms, and the checks that need no model.
#ifndef BEARING_JOBS_EDIT_FIELDS_H_
#define BEARING_JOBS_EDIT_FIELDS_H_

#include <string_view>
#include <vector>

#include "bearing/v1/job.pb.h"
#include "jobs/job_spec.h"

namespace bearing::jobs {

// Values of edit.form, and where in the output folder each is written.
inline constexpr std::string_view kCheckpointForm = "checkpoint";         // checkpoint/
inline constexpr std::string_view kLoraForm = "lora";                     // adapter/
inline constexpr std::string_view kControlVectorForm = "control-vector";  // control_vector.gguf
inline constexpr std::string_view kDirectionForm = "direction";           // edit_direction.safetensors

// None given means a checkpoint.
bool WritesForm(const bearing::v1::Edit& edit, std::string_view form);

// Strengths, layers, forms, and what cannot be had together.
std::vector<FieldViolation> ValidateEdit(const bearing::v1::JobSpec& spec);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_EDIT_FIELDS_H_
