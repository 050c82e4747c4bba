#include "jobs/report/chart_sections.h"

#include "jobs/report/html_parts.h"
#include "jobs/report/html_text.h"
#include "jobs/report/svg_lines.h"
#include "jobs/report/svg_scatter.h"
#include "sharding/concat.h"

namespace bearing::jobs {
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
  return Concat("<p>Mean residuals at position ", FormatFixed(position, 0),
                ", and the difference that makes the direction.</p>", ScrollBox(chart.title, lines));
}

std::string ScatterSection(const ReportData& data) {
  const std::string scatter = RenderScatter(data);
  if (scatter.empty()) return "";
  return Concat(
      "<p>Candidates with both scores. Filled points pass every test, open "
      "ones do not; the ring is the chosen one.</p>",
      ScrollBox("Induce against KL", scatter));
}

}  // namespace bearing::jobs
