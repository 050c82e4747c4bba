#include "jobs/report/cost_section.h"

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "jobs/report/html_text.h"
#include "jobs/report/report.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

bool IsShare(const std::string& metric) { return metric == "acc" || metric == "acc_norm" || metric == "exact_match"; }

std::string MetricTitle(const std::string& metric) {
  static const auto* const titles = new std::map<std::string, std::string>{
      {"cross_entropy", "Cross-entropy, nats a token"},
      {"perplexity", "Perplexity"},
      {"kl", "KL from unchanged, nats a token"},
      {"acc", "Accuracy"},
      {"acc_norm", "Accuracy, by length"},
      {"log_likelihood", "Log-likelihood of the right choice"},
      {"exact_match", "Exact match"},
  };
  const auto found = titles->find(metric);
  return found == titles->end() ? EscapeHtml(metric) : found->second;
}

std::string CostNumber(const std::string& metric, double value) {
  if (IsShare(metric)) return Concat(FormatFixed(100 * value, 1), " %");
  return FormatFixed(value, metric == "perplexity" || metric == "log_likelihood" ? 3 : 4);
}

std::string WithError(const std::string& metric, double value, const std::optional<double>& error, bool is_difference) {
  std::string text = Concat(is_difference && value > 0 ? "+" : "", CostNumber(metric, value));
  if (error.has_value()) {
    text += Concat(" <small>± ",
                   IsShare(metric) ? FormatFixed(100 * *error, 1)
                                   : FormatFixed(*error, metric == "perplexity" || metric == "log_likelihood" ? 3 : 4),
                   "</small>");
  }
  return text;
}

const CostRow::Value* ValueOf(const CostRow& row, std::string_view intervention) {
  const auto found = std::find_if(row.values.begin(), row.values.end(),
                                  [&](const CostRow::Value& value) { return value.intervention == intervention; });
  return found == row.values.end() ? nullptr : &*found;
}

std::string CostCell(const std::string& text) { return Concat("<td class=\"num\">", text, "</td>"); }

std::string CostRowHtml(const CostRow& row, const std::vector<std::string>& changed) {
  const CostRow::Value* base = ValueOf(row, "baseline");
  std::string out =
      Concat("<tr><th scope=\"row\">", MetricTitle(row.metric), "</th><td>", EscapeHtml(row.set), " <small>", row.items, " ",
             EscapeHtml(row.unit), row.tokens > 0 ? Concat(", ", row.tokens, " tokens") : "", "</small></td>",
             CostCell(base == nullptr ? "" : WithError(row.metric, base->value, base->standard_error, false)));
  for (const std::string& intervention : changed) {
    const CostRow::Value* value = ValueOf(row, intervention);
    out += CostCell(value == nullptr ? "" : WithError(row.metric, value->value, value->standard_error, false));
    out += CostCell(value == nullptr || !value->difference.has_value()
                        ? ""
                        : WithError(row.metric, *value->difference, value->difference_standard_error, true));
  }
  return out + "</tr>";
}

std::optional<double> NumberAt(const nlohmann::json& value, const char* key) {
  const auto found = value.find(key);
  return found == value.end() || found->is_null() ? std::nullopt : std::optional<double>(found->get<double>());
}

nlohmann::ordered_json NumberOrNull(const std::optional<double>& value) {
  return value.has_value() ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

}  // namespace

std::vector<CostRow> CostRowsOf(const nlohmann::json& costs) {
  std::vector<CostRow> rows;
  for (const nlohmann::json& measurement : costs.at("measurements")) {
    CostRow row;
    row.kind = measurement.at("kind").get<std::string>();
    row.set = measurement.at("set").get<std::string>();
    row.items = measurement.at("items").get<int64_t>();
    row.unit = measurement.at("unit").get<std::string>();
    for (const nlohmann::json& metric : measurement.at("metrics")) {
      row.metric = metric.at("metric").get<std::string>();
      row.tokens = metric.value("tokens", measurement.value("tokens", int64_t{0}));
      row.values.clear();
      for (const nlohmann::json& value : metric.at("values")) {
        row.values.push_back({.intervention = value.at("intervention").get<std::string>(),
                              .value = NumberAt(value, "value").value_or(std::numeric_limits<double>::quiet_NaN()),
                              .standard_error = NumberAt(value, "standard_error"),
                              .difference = NumberAt(value, "difference"),
                              .difference_standard_error = NumberAt(value, "difference_standard_error")});
      }
      rows.push_back(row);
    }
  }
  return rows;
}

std::string CostSection(const ReportData& data) {
  if (data.costs.empty()) return "";
  std::vector<std::string> changed;
  std::string head;
  const std::pair<const char*, const char*> columns[] = {{"ablation", "Direction ablated"}, {"addition", "Direction added"}};
  for (const auto& [intervention, title] : columns) {
    const bool measured = std::any_of(data.costs.begin(), data.costs.end(),
                                      [&, name = intervention](const CostRow& row) { return ValueOf(row, name) != nullptr; });
    if (!measured) continue;
    changed.push_back(intervention);
    head += Concat("<th scope=\"col\" class=\"num\">", title, "</th><th scope=\"col\" class=\"num\">Difference</th>");
  }
  std::string rows;
  for (const CostRow& row : data.costs) rows += CostRowHtml(row, changed);
  return Concat(
      "<section><h2>What it costs</h2><p>The same inputs as the model is and under the intervention, with one standard error; "
      "errors of differences are those of the paired differences.</p><div class=\"scroll\" tabindex=\"0\" role=\"region\" "
      "aria-label=\"What it costs\"><table class=\"costs\"><thead><tr><th scope=\"col\">Measure</th><th scope=\"col\">Set</th>"
      "<th scope=\"col\" class=\"num\">Unchanged</th>",
      head, "</tr></thead><tbody>", rows, "</tbody></table></div></section>");
}

nlohmann::ordered_json CostJson(const ReportData& data) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const CostRow& row : data.costs) {
    nlohmann::ordered_json values = nlohmann::ordered_json::array();
    for (const CostRow::Value& value : row.values) {
      values.push_back({{"intervention", value.intervention},
                        {"value", value.value},
                        {"standard_error", NumberOrNull(value.standard_error)},
                        {"difference", NumberOrNull(value.difference)},
                        {"difference_standard_error", NumberOrNull(value.difference_standard_error)}});
    }
    out.push_back({{"kind", row.kind},
                   {"set", row.set},
                   {"metric", row.metric},
                   {"items", row.items},
                   {"unit", row.unit},
                   {"tokens", row.tokens},
                   {"values", std::move(values)}});
  }
  return out;
}

}  // namespace bearing::jobs
