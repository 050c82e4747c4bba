#include "jobs/report/svg_heatmap.h"

#include <algorithm>

#include "jobs/report/color_scale.h"
#include "jobs/report/html_text.h"
#include "jobs/utf8.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr int kLeft = 168;
constexpr int kTop = 40;
constexpr int kRowHeight = 28;
constexpr int kGap = 2;
constexpr int kWidthForCells = 850;
constexpr int kLegendHeight = 66;
constexpr size_t kTokenCharacters = 15;

// Geometry of one map.
struct Grid {
  explicit Grid(const Heatmap& map)
      : column_width(std::clamp(kWidthForCells / std::max(1, map.columns), 13, 30)),
        width(kLeft + map.columns * column_width + 12),
        bottom(kTop + static_cast<int>(map.rows.size()) * kRowHeight),
        height(bottom + kLegendHeight) {}
  int X(int column) const { return kLeft + column * column_width; }
  int Y(int row) const { return kTop + row * kRowHeight; }
  int column_width;
  int width;
  int bottom;
  int height;
};

std::string Text(double x, double y, std::string_view css_class, std::string_view escaped) {
  return Concat("<text x=\"", Coordinate(x), "\" y=\"", Coordinate(y), "\" class=\"", css_class, "\">", escaped, "</text>");
}

std::string Rect(double x, double y, double width, double height, std::string_view attributes, std::string_view content = "") {
  const std::string start = Concat("<rect x=\"", Coordinate(x), "\" y=\"", Coordinate(y), "\" width=\"", Coordinate(width),
                                   "\" height=\"", Coordinate(height), "\" ", attributes);
  return content.empty() ? start + "/>" : Concat(start, ">", content, "</rect>");
}

std::string Definitions(const std::string& id) {
  return Concat("<defs><pattern id=\"", id,
                "-stopped\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
                "<rect width=\"6\" height=\"6\" class=\"blank\"/><path d=\"M0 0V6\" class=\"hatch\"/></pattern><pattern id=\"",
                id,
                "-zero\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><rect width=\"6\" height=\"6\" "
                "class=\"blank\"/><circle cx=\"3\" cy=\"3\" r=\"1\" class=\"speck\"/></pattern></defs>");
}

std::string FillAttribute(const std::string& id, HeatmapCell::Fill fill, int step) {
  switch (fill) {
    case HeatmapCell::Fill::kValue:
      return Concat("class=\"cell q", step, "\"");
    case HeatmapCell::Fill::kStopped:
      return Concat("class=\"cell\" fill=\"url(#", id, "-stopped)\"");
    case HeatmapCell::Fill::kZero:
      return Concat("class=\"cell\" fill=\"url(#", id, "-zero)\"");
    case HeatmapCell::Fill::kPruned:
      return "class=\"cell pruned\"";
  }
  return "";
}

std::string Axes(const Heatmap& map, const Grid& grid) {
  std::string out;
  for (size_t row = 0; row < map.rows.size(); ++row) {
    const double y = grid.Y(static_cast<int>(row)) + kRowHeight / 2.0 + 4;
    out += Text(kLeft - 8, y, "end label", EscapeHtml(map.rows[row].first));
    out += Text(kLeft - 40, y, "end mono", VisibleToken(Shorten(map.rows[row].second, kTokenCharacters)));
  }
  const int every = grid.column_width >= 24 ? (map.columns > 20 ? 2 : 1) : 5;
  for (int column = 0; column < map.columns; column += every) {
    out += Text(grid.X(column) + (grid.column_width - kGap) / 2.0, kTop - 7, "middle label", Concat(column));
  }
  out += Text(kLeft - 8, kTop - 7, "end note", "position · layer →");
  if (map.first_pruned_column < map.columns) {
    const double x = grid.X(map.first_pruned_column) - kGap / 2.0;
    out += Concat("<path d=\"M", Coordinate(x), " ", kTop - 24, "V", grid.bottom, "\" class=\"threshold\"/>");
    out += Text(x + 5, kTop - 24, "note", "left out: last layers →");
  }
  return out;
}

std::string Cells(const Heatmap& map, const Grid& grid) {
  std::string out;
  std::string above;
  const int width = grid.column_width - kGap;
  const int height = kRowHeight - kGap;
  for (const HeatmapCell& cell : map.cells) {
    const int x = grid.X(cell.column);
    const int y = grid.Y(cell.row);
    out += Rect(x, y, width, height, FillAttribute(map.id, cell.fill, cell.step),
                Concat("<title>", EscapeHtml(cell.title), "</title>"));
    if (cell.chosen) {
      // Twice, in the colour of the page and of the ink, so that the ring shows on any cell.
      above += Rect(x - 1, y - 1, width + 2, height + 2, "class=\"ring-back\"");
      above += Rect(x - 1, y - 1, width + 2, height + 2, "class=\"ring\"");
    }
    if (cell.passes) {
      above += Concat("<circle cx=\"", Coordinate(x + width / 2.0), "\" cy=\"", Coordinate(y + height / 2.0),
                      "\" r=\"3.2\" class=\"pass\"/>");
    }
  }
  return out + above;
}

std::string Legend(const Heatmap& map, const Grid& grid) {
  constexpr int kSwatch = 13;
  constexpr int kLegendRight = kSwatch * kColorSteps;
  const double top = grid.bottom + 18;
  std::string out;
  for (int step = 0; step < kColorSteps; ++step) {
    out += Rect(kLeft + step * kSwatch, top, kSwatch, 12, Concat("class=\"q", step, "\""));
  }
  out += Text(kLeft, top + 27, "label", EscapeHtml(map.best));
  // A line of its own: the three may be wider than the colours.
  out += Text(kLeft + kLegendRight / 2.0, top + 42, "middle label", EscapeHtml(map.middle));
  out += Text(kLeft + kLegendRight, top + 27, "end label", EscapeHtml(map.worst));
  return out;
}

}  // namespace

std::string RenderHeatmap(const Heatmap& map) {
  const Grid grid(map);
  // The legend needs room for its colours even when there are few layers.
  const int width = std::max(grid.width, kLeft + 230);
  return Concat("<svg class=\"heatmap\" role=\"img\" aria-labelledby=\"", map.id, "-title ", map.id, "-desc\" width=\"", width,
                "\" height=\"", grid.height, "\" viewBox=\"0 0 ", width, " ", grid.height, "\"><title id=\"", map.id,
                "-title\">", EscapeHtml(map.title), "</title><desc id=\"", map.id, "-desc\">", EscapeHtml(map.description),
                "</desc>", Definitions(map.id), Axes(map, grid), Cells(map, grid), Legend(map, grid), "</svg>");
}

}  // namespace bearing::jobs
