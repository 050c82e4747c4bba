#include <nlohmann/json.hpp>

#include "jobs/report/cost_section.h"
#include "jobs/report/geometry_section.h"
#include "jobs/report/report.h"
#include "jobs/report/report_sections.h"
#include "jobs/report/search_page.h"

namespace bearing::jobs {
namespace {

using json = nlohmann::ordered_json;

json ScoreJson(const std::optional<double>& value) { return value.has_value() ? json(*value) : json(nullptr); }

json CandidateJson(const Candidate& candidate, const SelectionRule& rule) {
  return {{"position", candidate.position},
          {"layer", candidate.layer},
          {"norm", candidate.norm},
          {"bypass", ScoreJson(candidate.bypass)},
          {"induce", ScoreJson(candidate.induce)},
          {"kl", ScoreJson(candidate.kl)},
          {"discarded_by", DiscardName(Classify(candidate, rule))}};
}

json SelectionJson(const ReportData& data) {
  const Selection selection = Select(data.candidates, data.rule);
  json out = {{"kl_max", data.rule.kl_max},
              {"induce_min", data.rule.induce_min},
              {"prune_layers", data.rule.prune_layers},
              {"first_pruned_layer", data.rule.first_pruned_layer()},
              {"complete", data.complete},
              {"relaxations", data.relaxations},
              {"considered", selection.considered},
              {"kept", selection.kept},
              {"discarded", selection.discarded},
              {"selected", nullptr},
              {"candidates", json::array()}};
  for (const Candidate& candidate : data.candidates) out["candidates"].push_back(CandidateJson(candidate, data.rule));
  if (data.selected >= 0 && data.selected < static_cast<int>(data.candidates.size())) {
    out["selected"] = CandidateJson(data.candidates[data.selected], data.rule);
  }
  return out;
}

json RatesJson(const ReportData& data) {
  json out = json::array();
  const std::pair<const char*, const char*> measured[] = {{"positive", "baseline"},
                                                          {"positive", "ablation"},
                                                          {"negative", "baseline"},
                                                          {"negative", "ablation"},
                                                          {"negative", "addition"}};
  for (const auto& [side, intervention] : measured) {
    const Rate rate = data.counts.Of(side, intervention);
    if (rate.n == 0) continue;
    out.push_back({{"side", side},
                   {"intervention", intervention},
                   {"share", rate.share},
                   {"standard_error", rate.standard_error},
                   {"n", rate.n}});
  }
  return out;
}

json CategoriesJson(const ReportData& data) {
  json out = json::array();
  for (const CategoryRates& row : data.counts.ByCategory()) {
    for (const auto& [intervention, rate] : row.rates) {
      out.push_back({{"side", row.side},
                     {"category", row.category},
                     {"intervention", intervention},
                     {"share", rate.share},
                     {"standard_error", rate.standard_error},
                     {"n", rate.n}});
    }
  }
  return out;
}

json GeometryJson(const ReportData& data) {
  json out = json::array();
  for (size_t layer = 0; layer < data.geometry.size(); ++layer) {
    const ReportData::LayerGeometry& g = data.geometry[layer];
    out.push_back({{"layer", layer},
                   {"positive_norm", g.positive_norm},
                   {"negative_norm", g.negative_norm},
                   {"difference_norm", g.difference_norm},
                   {"pc1_share", g.pc1_share},
                   {"pc2_share", g.pc2_share},
                   {"pc1_cosine", g.pc1_cosine},
                   {"auroc", g.auroc},
                   {"silhouette", g.silhouette}});
  }
  return out;
}

json MetricJson(const ReportData& data) {
  json tokens = json::array();
  for (const ReportData::MetricToken& token : data.metric_tokens) {
    tokens.push_back({{"id", token.id},
                      {"text", token.text},
                      {"positive_probability", token.positive_probability},
                      {"negative_probability", token.negative_probability}});
  }
  return {{"tokens", tokens},
          {"derived", data.metric_tokens_derived},
          {"positive_baseline", data.positive_metric},
          {"negative_baseline", data.negative_metric}};
}

// How many of how many prompts of each side are in `completions`.
json ShownJson(const ReportData& data) {
  json out = json::array();
  for (const char* const side : {"positive", "negative"}) {
    const auto found = data.shown.find(side);
    if (found == data.shown.end()) continue;
    const ShownPrompts& shown = found->second;
    out.push_back({{"side", side},
                   {"prompts", shown.prompts},
                   {"shown", shown.shown},
                   {"judges_differ", shown.judges_differ},
                   {"still_shows", shown.still_shows}});
  }
  return out;
}

json RowsJson(const std::vector<std::pair<std::string, std::string>>& rows) {
  json out = json::object();
  for (const auto& [name, value] : rows) out[name] = value;
  return out;
}

constexpr ReportNumbers kNumbers[] = {
    {"geometry", GeometryJson},
    {"costs", CostJson},
    {"search", SearchJson},
};

}  // namespace

absl::Span<const ReportNumbers> MoreReportNumbers() { return kNumbers; }

std::string RenderReportJson(const ReportData& data) {
  json out = {
      {"title", data.title},
      {"concept", data.concept_name},
      {"version", data.version},
      {"created", data.created},
      {"model",
       {{"name", data.model_name}, {"digest", data.model_digest}, {"num_layers", data.num_layers}, {"d_model", data.d_model}}},
      {"dtype", data.dtype},
      {"ranks", data.ranks},
      {"num_positions", data.num_positions},
      {"position_tokens", data.position_tokens},
      {"metric", MetricJson(data)},
      {"selection", SelectionJson(data)},
      {"rates", RatesJson(data)},
      {"rates_by_category", CategoriesJson(data)},
      {"norms", {{"positive", data.positive_norms}, {"negative", data.negative_norms}, {"difference", data.difference_norms}}}};
  for (const ReportNumbers& numbers : MoreReportNumbers()) out[std::string(numbers.key)] = numbers.json(data);
  if (const ChosenCosines cosines = CosinesOfChosen(data); cosines.layers != nullptr) {
    out["direction_cosines"] = {{"layers", *cosines.layers}, {"positions", *cosines.positions}};
  }
  out["prompts"] = json::array();
  for (const auto& [name, counts] : data.prompt_counts) {
    out["prompts"].push_back({{"set", name}, {"given", counts.first}, {"kept", counts.second}});
  }
  out["completions"] = json::array();
  for (const Completion& completion : data.completions) {
    out["completions"].push_back({{"side", completion.side},
                                  {"intervention", completion.intervention},
                                  {"category", completion.category},
                                  {"prompt", completion.prompt},
                                  {"response", completion.response},
                                  {"shows_concept", completion.shows_concept},
                                  {"matched_marker", completion.matched_marker},
                                  {"verdicts", completion.verdicts}});
  }
  out["completions_shown"] = ShownJson(data);
  out["judges"] = data.judges.is_null() ? nlohmann::json::array() : data.judges;
  out["agreement"] = data.agreement.is_null() ? nlohmann::json::array() : data.agreement;
  out["verification"] = RowsJson(data.verification);
  out["stage_seconds"] = json::object();
  for (const auto& [stage, seconds] : data.stage_seconds) out["stage_seconds"][stage] = seconds;
  out["provenance"] = RowsJson(data.provenance);
  // Completions may end in the middle of a character; such bytes become U+FFFD.
  return out.dump(2, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace) + "\n";
}

}  // namespace bearing::jobs
