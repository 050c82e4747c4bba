#include "jobs/report/cost_section.h"
#include "jobs/report/geometry_section.h"
#include "jobs/report/heatmap_panel.h"
#include "jobs/report/html_text.h"
#include "jobs/report/report.h"
#include "jobs/report/report_style.h"
#include "jobs/report/report_tables.h"
#include "jobs/report/summary_section.h"
#include "jobs/report/svg_lines.h"
#include "jobs/report/svg_scatter.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

std::string ScrollBox(const std::string& label, const std::string& content) {
  return Concat("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"", EscapeHtml(label), "\">", content,
                "</div>");
}

std::string NormSection(const ReportData& data) {
  const bool chosen = data.selected >= 0 && data.selected < static_cast<int>(data.candidates.size());
  const int position = chosen ? data.candidates[data.selected].position : -1;
  const auto row = [&](const std::vector<std::vector<double>>& norms) {
    const int index = position + static_cast<int>(norms.size());
    return index >= 0 && index < static_cast<int>(norms.size()) ? norms[index] : std::vector<double>();
  };
  LineChart chart;
  chart.id = "norms";
  chart.title = Concat("Norms by layer at position ", FormatFixed(position, 0));
  chart.description =
      "Norms of the mean residuals of positive and negative prompts and of their difference, at the input of each layer, on a "
      "logarithmic axis.";
  chart.y_label = "norm (logarithmic)";
  chart.series = {{"positive mean", "line-a", row(data.positive_norms)},
                  {"negative mean", "line-b", row(data.negative_norms)},
                  {"difference", "line-c", row(data.difference_norms)}};
  chart.marked_layer = chosen ? data.candidates[data.selected].layer : -1;
  const std::string lines = RenderLines(chart);
  if (lines.empty()) return "";
  return Concat("<section><h2>Norms of the residual stream</h2><p>Mean residuals at position ", FormatFixed(position, 0),
                ", and the difference that makes the direction.</p>", ScrollBox(chart.title, lines), "</section>");
}

std::string ScatterSection(const ReportData& data) {
  const std::string scatter = RenderScatter(data);
  if (scatter.empty()) return "";
  return Concat(
      "<section><h2>Strength against side effect</h2><p>Candidates with both scores. Filled points pass every test, open "
      "ones do not; the ring is the chosen one.</p>",
      ScrollBox("Induce against KL", scatter), "</section>");
}

}  // namespace

std::string RenderReportHtml(const ReportData& data) {
  const std::string title = EscapeHtml(data.title);
  return Concat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"><title>",
      title, " · Bearing</title><style>", ReportStyle(), "</style></head>\n<body><header><h1>", title, "</h1><p>Bearing ",
      EscapeHtml(data.version), " · ", EscapeHtml(data.created), "</p></header>\n<main>", SummarySection(data), "\n",
      EffectSection(data), "\n", CategorySection(data), "\n", CostSection(data), "\n", HeatmapSection(data), "\n",
      CandidateSection(data), "\n", ScatterSection(data), "\n", NormSection(data), "\n", GeometrySection(data), "\n",
      MetricSection(data), "\n", PromptSection(data), "\n", CompletionSection(data), "\n", VerificationSection(data), "\n",
      RunSection(data),
      "</main>\n<footer><p>For research on how models work and how safe they are. Ablating a direction can remove safeguards: "
      "keep "
      "edited checkpoints and these outputs from people they could harm, and follow the licence and the use policy of the "
      "model. "
      "The numbers, and all completions, are in report.json.</p></footer></body></html>\n");
}

}  // namespace bearing::jobs
