#include <ATen/ATen.h>

#include <filesystem>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "jobs/report/report.h"
#include "sharding/status_macros.h"
#include "worker/model/tensor_file.h"
#include "worker/stages/stages.h"
#include "worker/version.h"

namespace bearing::worker {
namespace {

std::optional<double> Score(const nlohmann::json& value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

// Norms over d_model of a [P, L, D] tensor of means.safetensors.
absl::StatusOr<std::vector<std::vector<double>>> Norms(const std::string& path, const std::string& name) {
  BEARING_ASSIGN_OR_RETURN(const at::Tensor tensor, model::ReadTensor(path, name));
  if (tensor.dim() != 3) return absl::DataLossError(absl::StrCat("tensor is not [P, L, D]: file=", path, " tensor=", name));
  const at::Tensor norms = at::norm(tensor.to(at::kDouble), 2, {2}).contiguous();
  std::vector<std::vector<double>> rows;
  for (int64_t p = 0; p < norms.size(0); ++p) {
    const double* row = norms.const_data_ptr<double>() + p * norms.size(1);
    rows.emplace_back(row, row + norms.size(1));
  }
  return rows;
}

absl::Status FillCollect(const JobContext& context, jobs::ReportData& data) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json collect, ReadJsonArtifact(context, "collect.json"));
  for (const nlohmann::json& token : collect.at("metric_tokens")) {
    data.metric_tokens.push_back({token.at("id").get<int>(), token.at("text").get<std::string>(),
                                  token.at("positive_probability").get<double>(),
                                  token.at("negative_probability").get<double>()});
  }
  data.metric_tokens_derived = collect.at("metric_tokens_derived").get<bool>();
  data.position_tokens = collect.at("post_instruction_tokens").get<std::vector<std::string>>();
  for (const auto& [name, set] : collect.at("prompt_sets").items()) {
    data.prompt_counts.push_back({name, {set.at("given").get<int>(), static_cast<int>(set.at("kept").size())}});
  }
  const std::string means = context.output->PathOf("means.safetensors");
  BEARING_ASSIGN_OR_RETURN(data.positive_norms, Norms(means, "positive_mean"));
  BEARING_ASSIGN_OR_RETURN(data.negative_norms, Norms(means, "negative_mean"));
  BEARING_ASSIGN_OR_RETURN(data.difference_norms, Norms(means, "mean_difference"));
  return absl::OkStatus();
}

absl::Status FillSelect(const JobContext& context, jobs::ReportData& data) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json select, ReadJsonArtifact(context, "candidates.json"));
  data.num_layers = select.at("num_layers").get<int>();
  data.num_positions = select.at("num_positions").get<int>();
  data.d_model = select.at("d_model").get<int64_t>();
  data.rule.kl_max = select.at("rule").at("kl_max").get<double>();
  data.rule.induce_min = select.at("rule").at("induce_min").get<double>();
  data.rule.prune_layers = select.at("rule").at("prune_layers").get<double>();
  data.rule.num_layers = data.num_layers;
  data.complete = select.at("complete").get<bool>();
  data.relaxations = select.at("relaxations").get<std::vector<std::string>>();
  data.positive_metric = select.at("positive_metric").get<double>();
  data.negative_metric = select.at("negative_metric").get<double>();
  data.selected = select.at("selected").get<int>();
  for (const nlohmann::json& row : select.at("candidates")) {
    jobs::Candidate candidate;
    candidate.position = row.at("position").get<int>();
    candidate.layer = row.at("layer").get<int>();
    candidate.norm = row.at("norm").get<double>();
    candidate.induce = Score(row.at("induce"));
    candidate.kl = Score(row.at("kl"));
    candidate.bypass = Score(row.at("bypass"));
    data.candidates.push_back(candidate);
  }
  return absl::OkStatus();
}

absl::Status FillCompletions(const JobContext& context, jobs::ReportData& data) {
  if (context.spec.evaluate().skip()) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(context.output->PathOf("completions.jsonl")));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (row.is_discarded()) return absl::DataLossError("completions.jsonl holds a line that is not JSON");
    jobs::Completion completion;
    completion.side = row.at("side").get<std::string>();
    completion.intervention = row.at("intervention").get<std::string>();
    completion.category = row.at("category").get<std::string>();
    completion.prompt = row.at("prompt").get<std::string>();
    completion.response = row.at("response").get<std::string>();
    completion.shows_concept = row.at("shows_concept").get<bool>();
    completion.matched_marker = row.at("matched_marker").get<std::string>();
    data.completions.push_back(std::move(completion));
  }
  return absl::OkStatus();
}

absl::Status FillVerification(const JobContext& context, jobs::ReportData& data) {
  if (context.spec.edit().skip()) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json verify, ReadJsonArtifact(context, "verify.json"));
  data.verification.push_back({"edited tensors", absl::StrCat(verify.at("edited_tensors").get<int>())});
  data.verification.push_back(
      {"largest |r^T W'| / |W'| as stored", absl::StrFormat("%.2e (%s)", verify.at("largest_residue").get<double>(),
                                                            verify.at("largest_residue_tensor").get<std::string>())});
  const nlohmann::json& logits = verify.at("logits");
  if (!logits.is_null()) {
    data.verification.push_back({"largest logit difference, edited weights to ablation",
                                 absl::StrFormat("%.3e", logits.at("max_logit_difference_to_ablation").get<double>())});
    data.verification.push_back({"largest logit difference, edited weights to original",
                                 absl::StrFormat("%.3e", logits.at("max_logit_difference_to_baseline").get<double>())});
    data.verification.push_back(
        {"mean KL, ablation to edited weights", absl::StrFormat("%.2e", logits.at("mean_kl_to_ablation").get<double>())});
  }
  return absl::OkStatus();
}

absl::Status WriteReport(const JobContext& context) {
  jobs::ReportData data;
  data.title = context.spec.name();
  data.concept_name = context.spec.concept_spec().name();
  data.version = kVersion;
  data.created = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
  data.model_name = std::filesystem::path(context.spec.model().path()).filename().string();
  data.model_digest = context.model_digest;
  data.dtype = context.spec.model().dtype();
  data.ranks = context.comm->size();
  BEARING_RETURN_IF_ERROR(FillCollect(context, data));
  BEARING_RETURN_IF_ERROR(FillSelect(context, data));
  BEARING_RETURN_IF_ERROR(FillCompletions(context, data));
  BEARING_RETURN_IF_ERROR(FillVerification(context, data));
  const auto seconds = context.output->StageSeconds();
  for (const char* stage : {"collect", "select", "evaluate", "edit", "verify"}) {
    if (const auto found = seconds.find(stage); found != seconds.end()) data.stage_seconds.push_back(*found);
  }
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json provenance, Provenance(context));
  for (const auto& [key, value] : provenance.at("prompts").items()) {
    data.provenance.push_back({absl::StrCat("prompts: ", key), absl::StrCat(value.at("file").get<std::string>(), ", sha256 ",
                                                                            value.at("sha256").get<std::string>())});
  }
  BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(context.output->PathOf("report.json"), jobs::RenderReportJson(data)));
  return jobs::WriteFileAtomically(context.output->PathOf("report.html"), jobs::RenderReportHtml(data));
}

}  // namespace

absl::StatusOr<StageFiles> RunReport(JobContext& context) {
  BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return WriteReport(context); }));
  return StageFiles{"report.html", "report.json"};
}

}  // namespace bearing::worker
