#include "jobs/report/svg_matrix.h"

#include <algorithm>
#include <cmath>

#include "jobs/report/color_scale.h"
#include "jobs/report/html_text.h"
#include "jobs/report/plot_area.h"
#include "jobs/utf8.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr int kMatrixLeft = 132;
constexpr int kMatrixTop = 34;
constexpr int kMatrixWidth = 860;  // For the cells.
constexpr size_t kLabelCharacters = 16;

int CellWidth(size_t columns) { return std::clamp(kMatrixWidth / std::max(1, static_cast<int>(columns)), 9, 30); }

std::string ColumnLabel(const MatrixMap& map, size_t column) {
  return column < map.column_labels.size() ? map.column_labels[column] : Concat(column);
}

std::string RowLabel(const MatrixMap& map, size_t row) {
  const std::string text = Shorten(map.row_labels[row], kLabelCharacters);
  return map.visible_spaces ? VisibleToken(text) : EscapeHtml(text);
}

std::string Legend(double scale, int top) {
  constexpr int kSwatch = 13;
  std::string out;
  for (int step = 0; step < kColorSteps; ++step) {
    out += Concat("<rect x=\"", kMatrixLeft + step * kSwatch, "\" y=\"", top, "\" width=\"", kSwatch,
                  "\" height=\"12\" class=\"q", step, "\"/>");
  }
  const int right = kMatrixLeft + kSwatch * kColorSteps;
  out += SvgText(kMatrixLeft, top + 27, "label", FormatShort(-scale));
  out += SvgText((kMatrixLeft + right) / 2.0, top + 27, "middle label", "0");
  return out + SvgText(right, top + 27, "end label", FormatShort(scale));
}

}  // namespace

std::string RenderMatrix(const MatrixMap& map) {
  double largest = 0;
  size_t columns = 0;
  bool any = false;
  for (const std::vector<double>& row : map.values) {
    columns = std::max(columns, row.size());
    for (const double value : row) {
      any = any || std::isfinite(value);
      if (std::isfinite(value)) largest = std::max(largest, std::fabs(value));
    }
  }
  if (!any) return "";
  const double scale = map.scale > 0 ? map.scale : largest > 0 ? largest : 1;
  const int width = CellWidth(columns);
  const int height = std::clamp(width, 13, 20);
  const int rows = static_cast<int>(map.values.size());

  std::string content = SvgText(kMatrixLeft - 8, kMatrixTop - 9, "end note",
                                Concat(EscapeHtml(map.row_axis), " · ", EscapeHtml(map.column_axis), " →"));
  const size_t every = width >= 24 ? 1 : width >= 14 ? 2 : 5;
  for (size_t column = 0; column < columns; column += every) {
    content += SvgText(kMatrixLeft + (static_cast<double>(column) + 0.5) * width, kMatrixTop - 9, "middle label",
                       EscapeHtml(ColumnLabel(map, column)));
  }
  for (size_t row = 0; row < map.values.size(); ++row) {
    const int y = kMatrixTop + static_cast<int>(row) * height;
    content += SvgText(kMatrixLeft - 8, y + height - 4, map.visible_spaces ? "end mono" : "end label", RowLabel(map, row));
    for (size_t column = 0; column < map.values[row].size(); ++column) {
      const double value = map.values[row][column];
      if (!std::isfinite(value)) continue;
      content += Concat("<rect x=\"", kMatrixLeft + static_cast<int>(column) * width, "\" y=\"", y, "\" width=\"", width - 1,
                        "\" height=\"", height - 1, "\" class=\"cell q", ColorStep(value / scale), "\"><title>", map.row_axis,
                        " ", RowLabel(map, row), ", ", EscapeHtml(map.column_axis), " ", EscapeHtml(ColumnLabel(map, column)),
                        ": ", FormatShort(value), "</title></rect>");
    }
  }
  const int bottom = kMatrixTop + rows * height;
  content += Legend(scale, bottom + 12);
  const int full_width = std::max(kMatrixLeft + static_cast<int>(columns) * width + 12, kMatrixLeft + 230);
  return SvgChart(map.id, map.title, map.description, full_width, bottom + 46, content);
}

}  // namespace bearing::jobs
