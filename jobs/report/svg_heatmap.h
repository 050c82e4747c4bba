// A heat map as an inline SVG element: rows are positions, columns are layers. Stateless; colours are classes of the page's
// style.
#ifndef BEARING_JOBS_REPORT_SVG_HEATMAP_H_
#define BEARING_JOBS_REPORT_SVG_HEATMAP_H_

#include <string>
#include <utility>
#include <vector>

namespace bearing::jobs {

struct HeatmapCell {
  enum class Fill { kValue, kStopped, kPruned, kZero };
  int row = 0;
  int column = 0;
  Fill fill = Fill::kValue;
  int step = 0;       // kValue: colour step.
  std::string title;  // Shown on hover and read out; plain text.
  bool passes = false;
  bool chosen = false;
};

struct Heatmap {
  std::string id;     // Prefix of the element ids, unique in the page.
  std::string title;  // Plain text.
  std::string description;
  std::vector<std::pair<std::string, std::string>> rows;  // Position and token, plain text.
  int columns = 0;
  int first_pruned_column = 0;  // == columns when no layer is pruned.
  std::vector<HeatmapCell> cells;
  // Under the best, the middle and the worst colour.
  std::string best, middle, worst;
};

std::string RenderHeatmap(const Heatmap& map);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_SVG_HEATMAP_H_
