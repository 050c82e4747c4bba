#include "jobs/report/summary_section.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "jobs/report/html_text.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

std::string Tile(std::string_view name, std::string_view value, std::string_view note, std::string_view meter = "") {
  return Concat("<div class=\"tile\"><dt>", name, "</dt><dd><b>", value, "</b>", meter, "<span>", note, "</span></dd></div>");
}

// How much of the room up to the threshold is used.
std::string Meter(double used, const std::string& label) {
  const double share = std::clamp(used, 0.0, 1.0);
  return Concat("<span class=\"meter\" role=\"img\" aria-label=\"", EscapeHtml(label),
                "\"><i style=\"width:", Coordinate(100 * share), "%\"></i></span>");
}

std::string ScoreText(const std::optional<double>& value, int decimals) {
  return value.has_value() ? FormatFixed(*value, decimals) : "not scored";
}

std::string TokenAt(const ReportData& data, int position) {
  const int index = position + static_cast<int>(data.position_tokens.size());
  return index >= 0 && index < static_cast<int>(data.position_tokens.size()) ? VisibleToken(data.position_tokens[index]) : "";
}

// "harmful prompts ...: from 93.8 % ± 6.1 to 6.2 % ± 6.1"; empty when either was not measured.
std::string ChangeText(const ReportData& data, const char* side, const char* intervention) {
  const Rate before = data.counts.Of(side, "baseline");
  const Rate after = data.counts.Of(side, intervention);
  if (before.n == 0 || after.n == 0) return "";
  const auto text = [](const Rate& rate) {
    return Concat(FormatPercent(rate.share), " ± ", FormatFixed(100 * rate.standard_error, 1));
  };
  return Concat("from ", text(before), " to ", text(after), " of ", after.n, " ", side, " test prompts");
}

// What it does to answers, how clearly it passed, and what it costs.
std::string Findings(const ReportData& data, const Candidate& chosen) {
  const std::string name = EscapeHtml(data.concept_name);
  std::string out = "<ul class=\"findings\">";
  const std::string ablated = ChangeText(data, "positive", "ablation");
  const std::string added = ChangeText(data, "negative", "addition");
  if (!ablated.empty()) out += Concat("<li>Ablating it takes ", name, " ", ablated, ".</li>");
  if (!added.empty()) out += Concat("<li>Adding it takes ", name, " ", added, ".</li>");
  if (ablated.empty() && added.empty()) out += "<li>What it does to answers was not measured.</li>";
  if (chosen.induce.has_value() && chosen.kl.has_value()) {
    out += Concat("<li>It passed the tests with ", FormatFixed(*chosen.induce - data.rule.induce_min, 2),
                  " to spare in induce, and with ", FormatPercent(*chosen.kl / data.rule.kl_max), " of the KL that is allowed",
                  data.relaxations.empty() ? "" : ", after the thresholds were relaxed", ".</li>");
    out += Concat("<li>It costs a mean KL divergence of ", FormatFixed(*chosen.kl, 4),
                  " in the first token after negative validation prompts.</li>");
  }
  for (const CostRow& row : data.costs) {
    if (row.metric != "cross_entropy") continue;
    for (const CostRow::Value& value : row.values) {
      if (value.intervention != "ablation" || !value.difference.has_value()) continue;
      out += Concat(
          "<li>Ablating it changes cross-entropy on ", EscapeHtml(row.set), " by ", FormatFixed(*value.difference, 4),
          value.difference_standard_error.has_value() ? Concat(" ± ", FormatFixed(*value.difference_standard_error, 4)) : "",
          " nats a token.</li>");
    }
  }
  return out + "</ul>";
}

std::string Tiles(const ReportData& data, const Candidate& chosen) {
  const Selection selection = Select(data.candidates, data.rule);
  const std::string token = TokenAt(data, chosen.position);
  std::string out = "<dl class=\"tiles\">";
  out += Tile("Layer", Concat(chosen.layer, "<small> of ", data.num_layers, "</small>"),
              Concat("rule allows layers below ", data.rule.first_pruned_layer()));
  out += Tile("Position", FormatFixed(chosen.position, 0), token.empty() ? "" : Concat("token <code>", token, "</code>"));
  out += Tile("Bypass", ScoreText(chosen.bypass, 2),
              Concat("from ", FormatFixed(data.positive_metric, 2), " without ablation; lower is better"));
  const double induce_room = chosen.induce.value_or(0) - data.rule.induce_min;
  out += Tile("Induce", ScoreText(chosen.induce, 2),
              Concat("from ", FormatFixed(data.negative_metric, 2), "; ", FormatFixed(std::fabs(induce_room), 2),
                     induce_room >= 0 ? " above" : " below", " the minimum of ", FormatShort(data.rule.induce_min)));
  const double kl_used = chosen.kl.value_or(0) / data.rule.kl_max;
  const std::string kl_note = Concat(FormatPercent(kl_used), " of the maximum of ", FormatShort(data.rule.kl_max));
  out += Tile("KL", ScoreText(chosen.kl, 4), kl_note, Meter(kl_used, kl_note));
  out += Tile("Candidates that pass", Concat(selection.kept, "<small> of ", selection.considered, "</small>"),
              "the one with the lowest bypass is chosen");
  return out + "</dl>";
}

std::string RateRow(const ReportData& data, const char* side, const char* intervention, const std::string& name) {
  const Rate rate = data.counts.Of(side, intervention);
  if (rate.n == 0) return "";
  const double low = std::max(0.0, rate.share - rate.standard_error);
  const double high = std::min(1.0, rate.share + rate.standard_error);
  const bool is_changed = std::string_view(intervention) != "baseline";
  return Concat("<tr><th scope=\"row\">", name, "</th><td class=\"bar\"><span class=\"track\"><i class=\"",
                is_changed ? "after" : "before", "\" style=\"width:", Coordinate(100 * rate.share),
                "%\"></i><u style=\"left:", Coordinate(100 * low), "%;width:", Coordinate(100 * (high - low)),
                "%\"></u></span></td><td class=\"num\">", FormatPercent(rate.share), "</td><td class=\"num\">± ",
                FormatFixed(100 * rate.standard_error, 1), "</td><td class=\"num\">", rate.n, "</td></tr>");
}

}  // namespace

std::string SummarySection(const ReportData& data) {
  const std::string name = EscapeHtml(data.concept_name);
  const bool found = data.selected >= 0 && data.selected < static_cast<int>(data.candidates.size());
  std::string out;
  if (found) {
    const Candidate& chosen = data.candidates[data.selected];
    const std::string token = TokenAt(data, chosen.position);
    out += Concat("<p class=\"lead\">The <em>", name, "</em> direction of <strong>", EscapeHtml(data.model_name),
                  "</strong> is read before layer ", chosen.layer, ", at position ", FormatFixed(chosen.position, 0),
                  token.empty() ? "" : Concat(" (<code>", token, "</code>)"), ".</p>");
  } else {
    out += Concat("<p class=\"lead\">No <em>", name, "</em> direction of <strong>", EscapeHtml(data.model_name),
                  "</strong> passes the tests.</p><p class=\"callout\">",
                  EscapeHtml(ExplainNoneSelected(data.candidates, data.rule)), "</p>");
  }
  for (const std::string& relaxation : data.relaxations) {
    out += Concat("<p class=\"callout\"><strong>Relaxed:</strong> ", EscapeHtml(relaxation), "</p>");
  }
  if (found) {
    const Candidate& chosen = data.candidates[data.selected];
    out += Findings(data, chosen) + Tiles(data, chosen);
  }
  return out;
}

std::string EffectSection(const ReportData& data) {
  const std::string name = EscapeHtml(data.concept_name);
  const std::string rows = RateRow(data, "positive", "baseline", "Positive prompts, unchanged") +
                           RateRow(data, "positive", "ablation", "Positive prompts, direction ablated") +
                           RateRow(data, "negative", "baseline", "Negative prompts, unchanged") +
                           RateRow(data, "negative", "ablation", "Negative prompts, direction ablated") +
                           RateRow(data, "negative", "addition", "Negative prompts, direction added");
  if (rows.empty()) return "";
  return Concat("<p>Share of test completions that show ", name,
                " (a marker is in the text), with one standard error.</p><div class=\"scroll\" tabindex=\"0\" role=\"region\" "
                "aria-label=\"What it does\"><table class=\"effect\"><caption>Completions that show it</caption><thead><tr>"
                "<th scope=\"col\">Completions</th><th scope=\"col\">Shows ",
                name,
                "</th><th scope=\"col\" class=\"num\">Share</th><th scope=\"col\" class=\"num\">Error</th>"
                "<th scope=\"col\" class=\"num\">n</th></tr></thead><tbody>",
                rows, "</tbody></table></div>");
}

std::string CategorySection(const ReportData& data) {
  const std::vector<CategoryRates> categories = data.counts.ByCategory();
  std::map<std::string, int> of_side;
  for (const CategoryRates& row : categories) ++of_side[row.side];
  std::string rows;
  for (const CategoryRates& row : categories) {
    if (of_side[row.side] < 2) continue;
    rows += Concat("<tr><th scope=\"row\">", row.category.empty() ? "(none)" : EscapeHtml(row.category), "</th><td>",
                   EscapeHtml(row.side), "</td>");
    for (const char* intervention : {"baseline", "ablation", "addition"}) {
      const auto rate = row.rates.find(intervention);
      rows += Concat("<td class=\"num\">",
                     rate == row.rates.end()
                         ? ""
                         : Concat(FormatPercent(rate->second.share), " ± ", FormatFixed(100 * rate->second.standard_error, 1),
                                  " <small>of ", rate->second.n, "</small>"),
                     "</td>");
    }
    rows += "</tr>";
  }
  if (rows.empty()) return "";
  return Concat(
      "<p>The same shares, with one standard error.</p><div class=\"scroll\" tabindex=\"0\" "
      "role=\"region\" aria-label=\"By category\"><table><caption>The same by category</caption><thead><tr><th "
      "scope=\"col\">Category</th><th "
      "scope=\"col\">Prompts</th>"
      "<th scope=\"col\" class=\"num\">Unchanged</th><th scope=\"col\" class=\"num\">Ablated</th>"
      "<th scope=\"col\" class=\"num\">Added</th></tr></thead><tbody>",
      rows, "</tbody></table></div>");
}

}  // namespace bearing::jobs
