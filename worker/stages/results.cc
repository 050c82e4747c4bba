#include <google/protobuf/util/json_util.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "jobs/cost_fields.h"
#include "sharding/status_macros.h"
#include "worker/stages/stages.h"
#include "worker/version.h"

namespace bearing::worker {

absl::StatusOr<nlohmann::json> ReadJsonArtifact(const JobContext& context, const std::string& name) {
  BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(context.output->PathOf(name)));
  nlohmann::json document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return absl::DataLossError(absl::StrCat("artifact is not valid JSON: file=", name));
  return document;
}

absl::StatusOr<bearing::v1::JobResult> ReadResult(const JobContext& context) {
  bearing::v1::JobResult result;
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json select, ReadJsonArtifact(context, "candidates.json"));
  const nlohmann::json& chosen = select.at("candidates").at(select.at("selected").get<size_t>());
  result.set_layer(chosen.at("layer").get<int>());
  result.set_position(chosen.at("position").get<int>());
  result.set_bypass(chosen.at("bypass").get<double>());
  result.set_induce(chosen.at("induce").get<double>());
  result.set_kl(chosen.at("kl").get<double>());
  result.set_positive_baseline(-1);
  result.set_positive_ablated(-1);
  result.set_negative_baseline(-1);
  result.set_negative_added(-1);
  if (!context.spec.evaluate().skip()) {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json evaluation, ReadJsonArtifact(context, "evaluation.json"));
    for (const nlohmann::json& rate : evaluation.at("rates")) {
      const std::string key = rate.at("side").get<std::string>() + " " + rate.at("intervention").get<std::string>();
      const double share = rate.at("share").get<double>();
      if (key == "positive baseline") result.set_positive_baseline(share);
      if (key == "positive ablation") result.set_positive_ablated(share);
      if (key == "negative baseline") result.set_negative_baseline(share);
      if (key == "negative addition") result.set_negative_added(share);
    }
  }
  result.set_manifest(absl::StrCat(context.spec.output(), "/manifest.json"));
  result.set_report(absl::StrCat(context.spec.output(), "/report.html"));
  return result;
}

absl::StatusOr<nlohmann::json> Provenance(const JobContext& context) {
  nlohmann::json prompts = nlohmann::json::object();
  const auto add = [&](const std::string& name, const bearing::v1::PromptSource& source) -> absl::Status {
    if (source.file().empty()) return absl::OkStatus();  // A test set that a job without evaluation need not have.
    BEARING_ASSIGN_OR_RETURN(const std::string content, jobs::ReadInput(source.file()));
    prompts[name] = {{"file", std::filesystem::path(source.file()).filename().string()},
                     {"sha256", jobs::Sha256OfBytes(content)},
                     {"count", source.count()}};
    return absl::OkStatus();
  };
  const bearing::v1::Prompts& p = context.spec.prompts();
  BEARING_RETURN_IF_ERROR(add("positive train", p.positive().train()));
  BEARING_RETURN_IF_ERROR(add("positive validation", p.positive().validation()));
  BEARING_RETURN_IF_ERROR(add("positive test", p.positive().test()));
  BEARING_RETURN_IF_ERROR(add("negative train", p.negative().train()));
  BEARING_RETURN_IF_ERROR(add("negative validation", p.negative().validation()));
  BEARING_RETURN_IF_ERROR(add("negative test", p.negative().test()));

  // Settings without the paths of this machine.
  bearing::v1::JobSpec settings = context.spec;
  for (const jobs::CostFile& cost : jobs::CostFiles(settings)) {
    bearing::v1::PromptSource source;
    source.set_file(*cost.file);
    source.set_count(cost.count);
    if (jobs::MeasuresCosts(context.spec)) BEARING_RETURN_IF_ERROR(add(absl::StrCat("costs ", cost.name), source));
    *cost.file = std::filesystem::path(*cost.file).filename().string();
  }
  settings.clear_prompts();
  settings.clear_output();
  settings.mutable_model()->set_path(std::filesystem::path(settings.model().path()).filename().string());
  if (!settings.model().chat_template().empty()) {
    settings.mutable_model()->set_chat_template(std::filesystem::path(settings.model().chat_template()).filename().string());
  }
  for (bearing::v1::Judge& judge : *settings.mutable_judges()) {
    if (!judge.has_model()) continue;
    bearing::v1::JudgeModel& model = *judge.mutable_model();
    const auto name = [](const std::string& path) { return std::filesystem::path(path).filename().string(); };
    model.set_path(name(model.path()));
    if (!model.prompt_file().empty()) model.set_prompt_file(name(model.prompt_file()));
    if (!model.chat_template().empty()) model.set_chat_template(name(model.chat_template()));
  }
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(settings, &json).ok()) return absl::InternalError("settings do not print");
  return nlohmann::json{
      {"bearing_version", kVersion},
      {"model",
       {{"name", settings.model().path()}, {"digest", context.model_digest}, {"family", context.reader->config().family}}},
      {"ranks", context.comm->size()},
      {"prompts", prompts},
      {"settings", nlohmann::json::parse(json)}};
}

}  // namespace bearing::worker
