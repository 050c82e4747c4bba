#include "jobs/report/judge_section.h"

#include "jobs/report/html_parts.h"
#include "jobs/report/html_text.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using Json = nlohmann::json;

std::string Text(const Json& object, const char* key) { return EscapeHtml(object.at(key).get<std::string>()); }

std::string Scroll(const char* label, const std::string& table) {
  return ScrollBox(label, Concat("<table><caption>", label, "</caption>", table, "</table>"));
}

std::string RateCell(const Json& rate) {
  const auto n = rate.at("n").get<int64_t>(), left_out = rate.at("not_judged").get<int64_t>();
  const std::string missing = left_out == 0 ? "" : Concat(" <small>(", left_out, " not judged)</small>");
  if (n == 0) return "<td class=\"num\">–" + missing + "</td>";
  return Concat("<td class=\"num\">", FormatPercent(rate.at("share").get<double>()), " ± ",
                FormatFixed(100 * rate.at("standard_error").get<double>(), 1), missing, "</td>");
}

std::string RateTable(const Json& judges) {
  std::string head = "<thead><tr><th scope=\"col\">Completions</th>";
  for (const Json& judge : judges) {
    head +=
        Concat("<th scope=\"col\" class=\"num\">", Text(judge, "name"), "<br><small>", Text(judge, "finds"), "</small></th>");
  }
  std::string body;
  const Json& first = judges.front().at("rates");
  for (size_t c = 0; c < first.size(); ++c) {
    body += Concat("<tr><th scope=\"row\">", Text(first[c], "side"), ", ", Text(first[c], "intervention"), "</th>");
    for (const Json& judge : judges) body += RateCell(judge.at("rates").at(c));
    body += "</tr>";
  }
  return Scroll("Rates of every judge", head + "</tr></thead><tbody>" + body + "</tbody>");
}

std::string AgreementTable(const Json& agreement) {
  std::string body;
  for (const Json& pair : agreement) {
    const auto cell = [&](const char* key) { return Concat("<td class=\"num\">", pair.at(key).get<int64_t>(), "</td>"); };
    const Json &raw = pair.at("raw"), &kappa = pair.at("kappa");
    body += Concat("<tr><th scope=\"row\">", EscapeHtml(pair.at("judges").at(0).get<std::string>()), " and ",
                   EscapeHtml(pair.at("judges").at(1).get<std::string>()), "</th><td class=\"num\">",
                   raw.is_null() ? "–" : FormatPercent(raw.get<double>()), "</td><td class=\"num\">",
                   kappa.is_null() ? "–" : FormatFixed(kappa.get<double>(), 2), "</td>", cell("both"), cell("first_only"),
                   cell("second_only"), cell("neither"), "</tr>");
  }
  return Scroll("Agreement of the judges",
                Concat("<thead><tr><th scope=\"col\">Judges</th><th scope=\"col\" class=\"num\">Agree</th><th scope=\"col\" "
                       "class=\"num\">Cohen’s κ</th><th scope=\"col\" class=\"num\">Both yes</th><th scope=\"col\" "
                       "class=\"num\">First only</th><th scope=\"col\" class=\"num\">Second only</th><th scope=\"col\" "
                       "class=\"num\">Neither</th></tr></thead><tbody>",
                       body, "</tbody>"));
}

}  // namespace

std::string JudgeSection(const ReportData& data) {
  if (!data.judges.is_array() || data.judges.size() < 2 || data.judges.front().at("rates").empty()) return "";
  std::string turned;
  for (const Json& judge : data.judges) {
    if (judge.at("opposite").get<bool>()) turned += Concat(turned.empty() ? "" : ", ", Text(judge, "name"));
  }
  return Concat(
      "<p>Share of completions in which each judge finds what its column names, with one "
      "standard error.</p>",
      RateTable(data.judges),
      "<h3>Do they agree?</h3><p>Over all completions that both have judged. κ takes out what agrees by chance: 1 is full "
      "agreement, 0 is none beyond chance",
      turned.empty() ? "" : Concat("; “yes” is turned round here for ", turned), ".</p>", AgreementTable(data.agreement));
}

}  // namespace bearing::jobs
