#include "jobs/report/html_parts.h"

#include "jobs/report/html_text.h"
#include "sharding/concat.h"

namespace bearing::jobs {

std::string ScrollBox(const std::string& label, const std::string& content) {
  return Concat("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"", EscapeHtml(label), "\">", content,
                "</div>");
}

std::string HtmlTable(const std::string& caption, const std::vector<std::string>& columns,
                      const std::vector<std::vector<std::string>>& rows, CellKind kind) {
  const char* number = kind == CellKind::kText ? "" : " class=\"num\"";
  std::string out = Concat("<table><caption>", EscapeHtml(caption), "</caption><thead><tr>");
  for (size_t i = 0; i < columns.size(); ++i) {
    out += Concat("<th scope=\"col\"", i == 0 ? "" : number, ">", columns[i], "</th>");
  }
  out += "</tr></thead><tbody>";
  for (const std::vector<std::string>& row : rows) {
    out += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      out += i == 0 ? Concat("<th scope=\"row\">", row[i], "</th>") : Concat("<td", number, ">", row[i], "</td>");
    }
    out += "</tr>";
  }
  return ScrollBox(caption, out + "</tbody></table>");
}

}  // namespace bearing::jobs
