#include "jobs/report/svg_lines.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "jobs/report/html_text.h"
#include "jobs/report/plot_area.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr int kWidth = 760;
constexpr int kHeight = 320;
constexpr int kLeft = 58;
constexpr int kRight = 630;
constexpr int kTop = 28;
constexpr int kBottom = 272;
constexpr double kLabelHeight = 16;

bool CanDraw(const LineChart& chart, double value) { return std::isfinite(value) && (!chart.logarithmic || value > 0); }

std::string LineOf(const LineChart& chart, const LineSeries& series, const PlotAxis& x, const PlotAxis& y) {
  std::string path;
  bool drawing = false;
  for (size_t layer = 0; layer < series.values.size(); ++layer) {
    if (!CanDraw(chart, series.values[layer])) {
      drawing = false;
      continue;
    }
    path +=
        Concat(drawing ? "L" : "M", Coordinate(x.At(static_cast<double>(layer))), " ", Coordinate(y.At(series.values[layer])));
    drawing = true;
  }
  return path.empty() ? "" : SvgPath(path, Concat("line ", series.css_class));
}

// The names stand at the ends of the lines, moved apart where they would overlap.
std::string EndLabels(const LineChart& chart, const PlotAxis& y) {
  std::vector<std::pair<double, const LineSeries*>> labels;
  for (const LineSeries& series : chart.series) {
    if (!series.values.empty() && CanDraw(chart, series.values.back()))
      labels.emplace_back(y.At(series.values.back()), &series);
  }
  std::sort(labels.begin(), labels.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string out;
  double lowest = -std::numeric_limits<double>::infinity();
  for (const auto& [wanted, series] : labels) {
    const double at = std::max(wanted, lowest + kLabelHeight);
    lowest = at;
    out += SvgText(kRight + 8, at + 4, Concat("series ", series->css_class), EscapeHtml(series->name));
  }
  return out;
}

}  // namespace

std::string RenderLines(const LineChart& chart) {
  double low = chart.logarithmic ? std::numeric_limits<double>::infinity() : 0;
  double high = chart.logarithmic ? 0 : 1;
  size_t layers = 0;
  bool any = false;
  for (const LineSeries& series : chart.series) {
    layers = std::max(layers, series.values.size());
    for (const double value : series.values) {
      if (!CanDraw(chart, value)) continue;
      any = true;
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  if (!any) return "";
  const PlotAxis x(0, std::max<double>(1, static_cast<double>(layers) - 1), kLeft, kRight, false);
  const PlotAxis y =
      chart.logarithmic ? PlotAxis(low / 1.15, high * 1.15, kBottom, kTop, true) : PlotAxis(low, high, kBottom, kTop, false);
  std::string content;
  for (const double tick : y.Ticks()) {
    content += SvgPath(Concat("M", kLeft, " ", Coordinate(y.At(tick)), "H", kRight), "grid");
    content += SvgText(kLeft - 8, y.At(tick) + 4, "end label", FormatShort(tick));
  }
  for (const double tick : x.Ticks()) {
    if (tick != std::floor(tick)) continue;
    content += SvgText(x.At(tick), kBottom + 18, "middle label", FormatShort(tick));
  }
  content += SvgPath(Concat("M", kLeft, " ", kBottom, "H", kRight), "axis");
  content += SvgText((kLeft + kRight) / 2.0, kHeight - 8, "middle note", "layer");
  content += SvgText(kLeft - 46, kTop - 12, "note", EscapeHtml(chart.y_label));
  if (chart.marked_layer >= 0) {
    const double at = x.At(chart.marked_layer);
    content += SvgPath(Concat("M", Coordinate(at), " ", kTop, "V", kBottom), "threshold");
    const bool is_right = at > kRight - 110;
    content += SvgText(at + (is_right ? -5 : 5), kTop + 10, is_right ? "end note" : "note",
                       Concat("chosen: layer ", chart.marked_layer));
  }
  for (const LineSeries& series : chart.series) content += LineOf(chart, series, x, y);
  content += EndLabels(chart, y);
  return SvgChart(chart.id, chart.title, chart.description, kWidth, kHeight, content);
}

}  // namespace bearing::jobs
