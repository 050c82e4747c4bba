#include <vector>

#include "jobs/report/html_text.h"
#include "jobs/report/report.h"
#include "jobs/report/report_sections.h"
#include "jobs/report/report_style.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr char kFooter[] =
    "<footer><p>For research on how models work and how safe they are. Ablating a direction can remove safeguards: keep "
    "edited checkpoints and these outputs from people they could harm, and follow the licence and the use policy of the "
    "model. The numbers are in report.json, all completions in completions.jsonl.</p></footer>";

std::string Contents(const std::vector<const ReportSection*>& sections) {
  std::string out = "<nav aria-label=\"Contents\"><ol>";
  for (const ReportSection* section : sections) {
    out += Concat("<li><a href=\"#", section->id, "\">", section->title, "</a></li>");
  }
  return out + "</ol></nav>";
}

}  // namespace

std::string RenderReportHtml(const ReportData& data) {
  std::vector<const ReportSection*> shown;
  std::string body;
  for (const ReportSection& section : ReportSections()) {
    const std::string content = section.body(data);
    if (content.empty()) continue;
    const std::string heading = Concat(section.id, "-heading");
    body += Concat("<section id=\"", section.id, "\" aria-labelledby=\"", heading, "\"><h2 id=\"", heading, "\">",
                   section.title, "</h2>", content, "</section>\n");
    shown.push_back(&section);
  }
  const std::string title = EscapeHtml(data.title);
  return Concat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"><title>",
      title, " · Bearing</title><style>", ReportStyle(), "</style></head>\n<body><header><h1>", title, "</h1><p>Bearing ",
      EscapeHtml(data.version), " · ", EscapeHtml(data.created), "</p></header>\n", Contents(shown), "\n<main>", body,
      "</main>\n", kFooter, "</body></html>\n");
}

}  // namespace bearing::jobs
