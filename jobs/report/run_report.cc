#include "jobs/report/run_report.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "jobs/artifacts.h"
#include "jobs/mean_grid.h"
#include "jobs/report/artifact_json.h"
#include "jobs/report/completion_reader.h"
#include "jobs/report/report_sections.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::optional<double> OptionalNumber(const Json& value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

absl::Status TakeCollect(const Json& collect, ReportData& data) {
  for (const Json& token : collect.at("metric_tokens")) {
    data.metric_tokens.push_back({token.at("id").get<int>(), token.at("text").get<std::string>(),
                                  token.at("positive_probability").get<double>(),
                                  token.at("negative_probability").get<double>()});
  }
  data.metric_tokens_derived = collect.at("metric_tokens_derived").get<bool>();
  data.position_tokens = collect.at("post_instruction_tokens").get<std::vector<std::string>>();
  for (const auto& [name, set] : collect.at("prompt_sets").items()) {
    data.prompt_counts.push_back({name, {set.at("given").get<int>(), static_cast<int>(set.at("kept").size())}});
  }
  return absl::OkStatus();
}

absl::Status TakeNorms(const std::string& means, ReportData& data) {
  const std::pair<const char*, std::vector<std::vector<double>>*> wanted[] = {{"positive_mean", &data.positive_norms},
                                                                              {"negative_mean", &data.negative_norms},
                                                                              {"mean_difference", &data.difference_norms}};
  for (const auto& [tensor, norms] : wanted) {
    BEARING_ASSIGN_OR_RETURN(const MeanGrid grid, MeanGrid::Open(means, tensor));
    BEARING_ASSIGN_OR_RETURN(*norms, grid.Norms());
  }
  return absl::OkStatus();
}

ReportData::Matrices MatricesOf(const Json& json) {
  ReportData::Matrices all;
  for (const Json& matrix : json) {
    auto& rows = all.emplace_back();
    for (const Json& row : matrix) {
      auto& values = rows.emplace_back();
      for (const Json& value : row) values.push_back(value.is_null() ? std::nan("") : value.get<double>());
    }
  }
  return all;
}

absl::Status TakeGeometry(const Json& geometry, ReportData& data) {
  if (geometry.contains("direction_cosines")) {  // Not in older runs.
    data.layer_cosines = MatricesOf(geometry["direction_cosines"].at("layers"));
    data.position_cosines = MatricesOf(geometry["direction_cosines"].at("positions"));
  }
  data.geometry_positives = geometry.at("positive").size();
  const size_t prompts = data.geometry_positives + geometry.at("negative").size();
  for (const Json& row : geometry.at("layers")) {
    const auto number = [&](const char* key) { return row.at(key).get<double>(); };
    const auto list = [&](const char* key) { return row.at(key).get<std::vector<double>>(); };
    data.geometry.push_back({.positive_norm = number("positive_norm"),
                             .negative_norm = number("negative_norm"),
                             .positive_norm_spread = number("positive_norm_spread"),
                             .negative_norm_spread = number("negative_norm_spread"),
                             .difference_norm = number("difference_norm"),
                             .pc1_share = number("pc1_share"),
                             .pc2_share = number("pc2_share"),
                             .pc1_cosine = number("pc1_cosine"),
                             .auroc = number("auroc"),
                             .silhouette = number("silhouette"),
                             .projections = list("projections"),
                             .pc1 = list("pc1"),
                             .pc2 = list("pc2")});
    const auto& layer = data.geometry.back();
    if (layer.projections.size() != prompts || layer.pc1.size() != prompts || layer.pc2.size() != prompts) {
      return absl::DataLossError(
          Concat("not one number for each of ", prompts, " prompts: file=geometry.json layer=", data.geometry.size() - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status TakeSelection(const Json& select, ReportData& data) {
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
  for (const Json& row : select.at("candidates")) {
    Candidate candidate;
    candidate.position = row.at("position").get<int>();
    candidate.layer = row.at("layer").get<int>();
    candidate.norm = row.at("norm").get<double>();
    candidate.induce = OptionalNumber(row.at("induce"));
    candidate.kl = OptionalNumber(row.at("kl"));
    candidate.bypass = OptionalNumber(row.at("bypass"));
    data.candidates.push_back(candidate);
  }
  return absl::OkStatus();
}

absl::Status TakeEvaluation(const Json& evaluation, ReportData& data) {
  data.judges = evaluation.value("judges", Json::array());  // Older runs have none.
  data.agreement = evaluation.value("agreement", Json::array());
  return absl::OkStatus();
}

// Of forms that are no checkpoint.
void TakeForms(const Json& forms, ReportData& data) {
  if (const auto lora = forms.find("lora"); lora != forms.end()) {
    data.verification.push_back({"LoRA adapter: modules", Concat(lora->at("modules").get<int>())});
    data.verification.push_back(
        {"LoRA adapter: largest |r^T (W + B A)| / |W|", absl::StrFormat("%.2e", lora->at("largest_residue").get<double>())});
  }
  if (const auto vector = forms.find("control-vector"); vector != forms.end()) {
    data.verification.push_back({"control vector", Concat(vector->at("tensor").get<std::string>(), ", norm ",
                                                          absl::StrFormat("%.4g", vector->at("norm").get<double>()))});
  }
}

absl::Status TakeVerification(const Json& verify, ReportData& data) {
  if (const auto edited = verify.find("edited_tensors"); edited != verify.end()) {
    data.verification.push_back({"edited tensors", Concat(edited->get<int>())});
    const Json& worst = verify.at("largest_residue_tensor");  // null where nothing was removed.
    if (!worst.is_null()) {
      data.verification.push_back(
          {"largest |r^T W'| / |W'| as stored",
           absl::StrFormat("%.2e (%s)", verify.at("largest_residue").get<double>(), worst.get<std::string>())});
    }
  }
  if (const auto forms = verify.find("forms"); forms != verify.end()) TakeForms(*forms, data);
  const Json& logits = verify.at("logits");
  if (logits.is_null()) return absl::OkStatus();
  const auto add = [&](const char* name, const char* key) {
    data.verification.push_back({name, absl::StrFormat("%.3e", logits.at(key).get<double>())});
  };
  add("largest logit difference, edited weights to intervention", "max_logit_difference_to_ablation");
  add("largest logit difference, edited weights to original", "max_logit_difference_to_baseline");
  add("mean KL, intervention to edited weights", "mean_kl_to_ablation");
  return absl::OkStatus();
}

absl::Status TakeProvenance(const Json& provenance, ReportData& data) {
  // What is empty is not in the JSON of a message.
  const Json& settings = provenance.at("settings");
  data.version = provenance.at("bearing_version").get<std::string>();
  data.title = settings.value("name", "");
  data.concept_name = settings.at("concept").value("name", "");
  data.dtype = settings.at("model").value("dtype", "");
  data.model_name = provenance.at("model").at("name").get<std::string>();
  data.model_digest = provenance.at("model").at("digest").get<std::string>();
  data.ranks = provenance.at("ranks").get<int>();
  for (const auto& [key, value] : provenance.at("prompts").items()) {
    data.provenance.push_back({Concat("prompts: ", key), Concat(value.at("file").get<std::string>(), ", sha256 ",
                                                                value.at("sha256").get<std::string>())});
  }
  return absl::OkStatus();
}

// From the marks of the stages; a copy of a run without them has no times.
void TakeStageSeconds(const std::string& folder, ReportData& data) {
  for (const char* stage : {"collect", "select", "evaluate", "judge", "cost", "edit", "verify"}) {
    const std::string mark = Concat(folder, "/.bearing/stages/", stage, ".json");
    WithJson(mark, [&](const Json& document) {
      data.stage_seconds.push_back({stage, document.at("seconds").get<double>()});
      return absl::OkStatus();
    }).IgnoreError();
  }
}

// Of `bearing search RUN --out RUN/search`. One of another model is older than the run, and no reason to fail it.
absl::Status TakeSearch(const Json& search, ReportData& data) {
  if (search.at("model_digest").get<std::string>() == data.model_digest) data.search = search;
  return absl::OkStatus();
}

absl::Status TakeCosts(const Json& costs, ReportData& data) {
  data.costs = CostRowsOf(costs);
  return absl::OkStatus();
}

constexpr ReportSource kSources[] = {
    {"collect.json", true, ReadJson<TakeCollect>},
    {"means.safetensors", true, TakeNorms},
    {"candidates.json", true, ReadJson<TakeSelection>},
    {"geometry.json", false, ReadJson<TakeGeometry>},
    {"costs.json", false, ReadJson<TakeCosts>},
    {"evaluation.json", false, ReadJson<TakeEvaluation>},  // Before the completions.
    {"completions.jsonl", false, TakeCompletions},
    {"verify.json", false, ReadJson<TakeVerification>},
    {"search/search.json", false, ReadJson<TakeSearch>},
};

}  // namespace

absl::Span<const ReportSource> ReportSources() { return kSources; }

absl::StatusOr<ReportData> ReadReport(const std::string& folder, const Json& provenance) {
  const auto path = [&](std::string_view name) { return Concat(folder, "/", name); };
  ReportData data;
  data.created = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
  BEARING_RETURN_IF_ERROR(GuardJson(path("manifest.json"), [&] { return TakeProvenance(provenance, data); }));
  for (const ReportSource& source : ReportSources()) {
    if (!source.required && !fs::exists(path(source.file))) continue;
    BEARING_RETURN_IF_ERROR(source.read(path(source.file), data));
  }
  TakeStageSeconds(folder, data);
  return data;
}

absl::StatusOr<ReportData> ReadFinishedReport(const std::string& folder) {
  std::set<std::string> sources;
  for (const ReportSource& source : ReportSources()) sources.emplace(source.file);
  BEARING_ASSIGN_OR_RETURN(const Json manifest, VerifyManifest(folder, &sources));
  if (!manifest.contains("provenance")) {
    return absl::DataLossError(Concat("not the manifest of a job: file=", folder, "/manifest.json"));
  }
  BEARING_ASSIGN_OR_RETURN(ReportData data, ReadReport(folder, manifest["provenance"]));
  if (const std::string search = Concat(folder, "/search/search.json"); data.search.is_null() && fs::exists(search)) {
    return absl::FailedPreconditionError(Concat("the search in the run's folder is of another model: file=", search));
  }
  WithJson(Concat(folder, "/report.json"), [&](const Json& old) {
    data.created = old.at("created").get<std::string>();
    return absl::OkStatus();
  }).IgnoreError();
  return data;
}

absl::Status RebuildReport(const std::string& folder) {
  BEARING_ASSIGN_OR_RETURN(const ReportData data, ReadFinishedReport(folder));
  return ReplaceArtifacts(folder, {{"report.html", RenderReportHtml(data)}, {"report.json", RenderReportJson(data)}});
}

}  // namespace bearing::jobs
