#include "worker/stages/small_forms.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "jobs/edit_fields.h"
#include "sharding/status_macros.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/lora_adapter.h"
#include "worker/edit/vector_forms.h"

namespace bearing::worker {
namespace {

constexpr const char* kAdapter = "adapter";
constexpr const char* kControlVector = "control_vector.gguf";
constexpr const char* kDirection = "edit_direction.safetensors";

// What a control vector adds.
double AddedFactor(const JobEdit& edit, const bearing::v1::Edit& fields) {
  return fields.has_induce() ? fields.induce() : edit.removal.strength;
}

absl::Status Remove(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot remove: path=", path, " error=", error.message()));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StageFiles> WriteSmallForms(const JobContext& context, const JobEdit& edit, const ChosenDirection& chosen,
                                           const edit::RecordInputs& record) {
  const bearing::v1::Edit& fields = context.spec.edit();
  const sharding::WeightFiles& source = context.reader->weights();
  StageFiles files;
  BEARING_ASSIGN_OR_RETURN(const edit::EditPlan plan, edit::MakeEditPlan(source, edit.removal));
  BEARING_ASSIGN_OR_RETURN(const edit::DirectionInput input,
                           edit::ReadDirectionInput(context.output->PathOf("direction.safetensors")));
  if (jobs::WritesForm(fields, jobs::kControlVectorForm)) {
    BEARING_RETURN_IF_ERROR(edit::WriteControlVector(plan.model, input.added(), chosen.layer, AddedFactor(edit, fields),
                                                     context.output->PathOf(kControlVector)));
    files.emplace_back(kControlVector);
  }
  if (jobs::WritesForm(fields, jobs::kDirectionForm)) {
    BEARING_RETURN_IF_ERROR(Remove(context.output->PathOf(kDirection)));
    BEARING_RETURN_IF_ERROR(edit::WriteDirectionFile(plan, input, context.output->PathOf(kDirection)));
    files.emplace_back(kDirection);
  }
  if (jobs::WritesForm(fields, jobs::kLoraForm)) {
    const std::string folder = context.output->PathOf(kAdapter);
    BEARING_RETURN_IF_ERROR(Remove(folder));
    BEARING_RETURN_IF_ERROR(edit::WriteLora(source, plan, edit.removal, record, folder));
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      files.push_back(absl::StrCat(kAdapter, "/", entry.path().filename().string()));
    }
  }
  return files;
}

absl::StatusOr<nlohmann::json> VerifySmallForms(const JobContext& context, const JobEdit& edit, const ChosenDirection& chosen) {
  const bearing::v1::Edit& fields = context.spec.edit();
  nlohmann::json found = nlohmann::json::object();
  BEARING_ASSIGN_OR_RETURN(const edit::EditPlan plan, edit::MakeEditPlan(context.reader->weights(), edit.removal));
  BEARING_ASSIGN_OR_RETURN(const edit::DirectionInput input,
                           edit::ReadDirectionInput(context.output->PathOf("direction.safetensors")));
  if (jobs::WritesForm(fields, jobs::kControlVectorForm)) {
    BEARING_ASSIGN_OR_RETURN(found["control-vector"],
                             edit::VerifyControlVector(plan.model, input.added(), chosen.layer, AddedFactor(edit, fields),
                                                       context.output->PathOf(kControlVector)));
  }
  if (jobs::WritesForm(fields, jobs::kDirectionForm)) {
    BEARING_ASSIGN_OR_RETURN(found["direction"], edit::VerifyDirectionFile(plan, context.output->PathOf(kDirection)));
  }
  if (jobs::WritesForm(fields, jobs::kLoraForm)) {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json record, ReadJsonArtifact(context, absl::StrCat(kAdapter, "/bearing.json")));
    found["lora"] = record.at("verification");
  }
  return found;
}

}  // namespace bearing::worker
