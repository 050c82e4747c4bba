#include <google/protobuf/util/json_util.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "jobs/artifacts.h"
#include "jobs/cost_fields.h"
#include "jobs/job_spec.h"
#include "jobs/prompt_fields.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

absl::StatusOr<std::string> ContentInPlaceOfPath(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const std::string content, ReadInput(path));
  // The extension says how the content is read.
  return Concat("sha256:", Sha256OfBytes(content), absl::AsciiStrToLower(std::filesystem::path(path).extension().string()));
}

}  // namespace

absl::StatusOr<std::string> SpecDigest(const bearing::v1::JobSpec& spec) {
  bearing::v1::JobSpec canonical = spec;
  // An explicit default and a field left out mean the same run.
  ApplyDefaults(canonical);
  canonical.clear_name();
  canonical.clear_labels();
  canonical.clear_output();
  canonical.clear_ranks();
  canonical.clear_tensor_parallel();
  canonical.clear_priority();
  canonical.clear_max_attempts();
  for (const PromptField& field : PromptFields()) {
    if (FindSource(canonical, field) == nullptr) continue;
    bearing::v1::PromptSource& source = MutableSource(canonical, field);
    BEARING_ASSIGN_OR_RETURN(*source.mutable_file(), ContentInPlaceOfPath(source.file()));
  }
  for (const CostFile& cost : CostFiles(canonical)) {
    BEARING_ASSIGN_OR_RETURN(*cost.file, ContentInPlaceOfPath(*cost.file));
  }
  if (!canonical.model().chat_template().empty()) {
    BEARING_ASSIGN_OR_RETURN(*canonical.mutable_model()->mutable_chat_template(),
                             ContentInPlaceOfPath(canonical.model().chat_template()));
  }
  for (bearing::v1::Judge& judge : *canonical.mutable_judges()) {
    if (!judge.model().prompt_file().empty()) {
      BEARING_ASSIGN_OR_RETURN(*judge.mutable_model()->mutable_prompt_file(),
                               ContentInPlaceOfPath(judge.model().prompt_file()));
    }
    if (!judge.model().chat_template().empty()) {
      BEARING_ASSIGN_OR_RETURN(*judge.mutable_model()->mutable_chat_template(),
                               ContentInPlaceOfPath(judge.model().chat_template()));
    }
  }
  std::string text;
  const auto converted = google::protobuf::util::MessageToJsonString(canonical, &text);
  if (!converted.ok()) return absl::InternalError(Concat("cannot write the job as JSON: ", converted.ToString()));
  // nlohmann's objects are sorted by key, so the text does not depend on the order of the fields.
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InternalError("cannot read the job's own JSON");
  return Sha256OfBytes(json.dump());
}

absl::StatusOr<std::string> StageDigest(const bearing::v1::JobSpec& spec, bearing::v1::Stage stage) {
  using bearing::v1::Stage;
  if (stage != Stage::STAGE_COLLECT && stage != Stage::STAGE_SELECT && stage != Stage::STAGE_EVALUATE) {
    return absl::InvalidArgumentError(Concat("no digest of this stage: stage=", bearing::v1::Stage_Name(stage)));
  }
  bearing::v1::JobSpec read = spec;
  read.clear_edit();
  read.clear_costs();
  read.clear_judges();
  if (stage != Stage::STAGE_EVALUATE) {
    read.clear_evaluate();
    read.mutable_prompts()->mutable_positive()->clear_test();
    read.mutable_prompts()->mutable_negative()->clear_test();
  }
  if (stage == Stage::STAGE_COLLECT) read.clear_select();
  BEARING_ASSIGN_OR_RETURN(const std::string digest, SpecDigest(read));
  return Concat(bearing::v1::Stage_Name(stage), ":", digest);
}

}  // namespace bearing::jobs
