#include "jobs/report/report_tables.h"

#include <algorithm>

#include "jobs/report/html_parts.h"
#include "jobs/report/html_text.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using NamedRows = std::vector<std::pair<std::string, std::string>>;

std::string NamedTable(const std::string& caption, const std::string& first, const std::string& second, const NamedRows& rows) {
  std::vector<std::vector<std::string>> escaped;
  for (const auto& [name, value] : rows) escaped.push_back({EscapeHtml(name), EscapeHtml(value)});
  return HtmlTable(caption, {first, second}, escaped, CellKind::kText);
}

std::string ScoreCell(const std::optional<double>& value, int decimals) {
  return value.has_value() ? FormatFixed(*value, decimals) : "–";
}

const char* DiscardText(Discard reason) {
  switch (reason) {
    case Discard::kNone:
      return "passes";
    case Discard::kZeroNorm:
      return "no direction (means are equal)";
    case Discard::kNotANumber:
      return "a score is not a number";
    case Discard::kPrunedLayer:
      return "one of the last layers";
    case Discard::kInduce:
      return "induce below induce_min";
    case Discard::kKl:
      return "KL above kl_max";
    case Discard::kNotScored:
      return "not scored completely";
  }
  return "";
}

}  // namespace

std::string CandidateSection(const ReportData& data) {
  if (data.candidates.empty()) return "";
  const Selection selection = Select(data.candidates, data.rule);
  std::vector<std::vector<std::string>> counts = {{"considered", Concat(selection.considered)}};
  for (const Discard reason :
       {Discard::kZeroNorm, Discard::kNotANumber, Discard::kPrunedLayer, Discard::kInduce, Discard::kKl, Discard::kNotScored}) {
    const auto found = selection.discarded.find(DiscardName(reason));
    if (found != selection.discarded.end()) counts.push_back({DiscardText(reason), Concat("−", found->second)});
  }
  counts.push_back({"<strong>pass</strong>", Concat("<strong>", selection.kept, "</strong>")});
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < data.candidates.size(); ++i) {
    const Candidate& candidate = data.candidates[i];
    const bool chosen = static_cast<int>(i) == data.selected;
    rows.push_back({Concat("position ", FormatFixed(candidate.position, 0), ", layer ", candidate.layer),
                    FormatFixed(candidate.norm, 3), ScoreCell(candidate.induce, 3), ScoreCell(candidate.kl, 4),
                    ScoreCell(candidate.bypass, 3),
                    Concat(chosen ? "<strong>chosen</strong>; " : "", DiscardText(Classify(candidate, data.rule)))});
  }
  return Concat(
      "<p>A candidate is tested in this order and drops out at its first failure",
      data.complete ? "; all scores were measured all the same, for complete maps" : "; later scores are then not measured",
      ".</p>", HtmlTable("Candidates by outcome", {"Candidates", "Number"}, counts, CellKind::kNumber),
      "<details><summary>All scores as a table</summary>",
      HtmlTable("Scores of all candidates", {"Candidate", "Norm", "Induce", "KL", "Bypass", "Outcome"}, rows,
                CellKind::kNumber),
      "</details>");
}

std::string MetricSection(const ReportData& data) {
  if (data.metric_tokens.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const ReportData::MetricToken& token : data.metric_tokens) {
    rows.push_back({Concat("<code>", VisibleToken(token.text), "</code>"), Concat(token.id),
                    FormatFixed(token.positive_probability, 4), FormatFixed(token.negative_probability, 4)});
  }
  return Concat(
      "<p>The metric is log P − log(1 − P), P being the probability that the answer "
      "starts with one of these tokens. Without intervention its mean is ",
      FormatFixed(data.positive_metric, 2), " on positive and ", FormatFixed(data.negative_metric, 2),
      " on negative validation prompts. ",
      data.metric_tokens_derived ? "The tokens were derived from what the model says on the training prompts."
                                 : "The tokens were given in the job file.",
      "</p>",
      HtmlTable("Tokens of the metric", {"Token", "Id", "P on positive prompts", "P on negative prompts"}, rows,
                CellKind::kNumber));
}

std::string PromptSection(const ReportData& data) {
  if (data.prompt_counts.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, counts] : data.prompt_counts) {
    rows.push_back({EscapeHtml(name), Concat(counts.first), Concat(counts.second)});
  }
  return Concat("<p>The filter keeps positive prompts with a metric above 0 and negative ones below.</p>",
                HtmlTable("Number of prompts", {"Set", "Given", "Kept"}, rows, CellKind::kNumber));
}

std::string VerificationSection(const ReportData& data) {
  if (data.verification.empty()) return "";
  return Concat(
      "<p>The edited weights without intervention against the original "
      "weights with the direction ablated.</p>",
      NamedTable("Edited weights", "Check", "Result", data.verification));
}

std::string RunSection(const ReportData& data) {
  double total = 0;
  double longest = 0;
  for (const auto& [stage, seconds] : data.stage_seconds) {
    total += seconds;
    longest = std::max(longest, seconds);
  }
  std::string stages;
  for (const auto& [stage, seconds] : data.stage_seconds) {
    const double share = longest > 0 ? seconds / longest : 0;
    stages += Concat("<tr><th scope=\"row\">", EscapeHtml(stage),
                     "</th><td class=\"bar\"><span class=\"track\"><i class=\"before\" style=\"width:", Coordinate(100 * share),
                     "%\"></i></span></td><td class=\"num\">", FormatSeconds(seconds), "</td></tr>");
  }
  NamedRows rows = {{"Model", data.model_name},
                    {"Model digest", data.model_digest},
                    {"Layers × width", Concat(data.num_layers, " × ", data.d_model)},
                    {"Computed in", data.dtype},
                    {"Ranks", Concat(data.ranks)},
                    {"Bearing", data.version},
                    {"Created", data.created}};
  rows.insert(rows.end(), data.provenance.begin(), data.provenance.end());
  std::string out;
  if (!stages.empty()) {
    out += ScrollBox("Time by stage", Concat("<table class=\"effect\"><caption>Time by stage</caption><thead><tr><th "
                                             "scope=\"col\">Stage</th><th scope=\"col\">Part of the "
                                             "longest</th><th scope=\"col\" class=\"num\">Time</th></tr></thead><tbody>",
                                             stages, "<tr><th scope=\"row\">all stages</th><td></td><td class=\"num\">",
                                             FormatSeconds(total), "</td></tr></tbody></table>"));
  }
  return Concat(out, "<h3>Provenance</h3><div class=\"provenance\">", NamedTable("Provenance", "Item", "Value", rows),
                "</div>");
}

}  // namespace bearing::jobs
