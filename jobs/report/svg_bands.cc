#include "jobs/report/svg_bands.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "jobs/report/html_text.h"
#include "jobs/report/plot_area.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr int kBandWidth = 760;
constexpr int kBandHeight = 320;
constexpr int kBandLeft = 58;
constexpr int kBandRight = 742;
constexpr int kBandTop = 44;
constexpr int kBandBottom = 272;

std::string PathThrough(const std::vector<double>& values, const PlotAxis& x, const PlotAxis& y, bool backwards) {
  std::string path;
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t at = backwards ? values.size() - 1 - i : i;
    if (!std::isfinite(values[at])) continue;
    path += Concat(path.empty() && !backwards ? "M" : "L", Coordinate(x.At(static_cast<double>(at))), " ",
                   Coordinate(y.At(values[at])));
  }
  return path;
}

}  // namespace

std::string BandStyle() {
  return ".band{opacity:.18;stroke:none}.band.line-a{fill:var(--orange)}.band.line-b{fill:var(--blue)}"
         ".band.line-c{fill:var(--violet)}.key{stroke-width:2.4}";
}

std::string RenderBands(const BandChart& chart) {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  size_t layers = 0;
  for (const BandCurve& curve : chart.curves) {
    layers = std::max(layers, curve.middle.size());
    for (const auto* values : {&curve.middle, &curve.low, &curve.high}) {
      for (const double value : *values) {
        if (!std::isfinite(value)) continue;
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
  }
  if (!(low <= high)) return "";
  const PlotAxis x(0, std::max<double>(1, static_cast<double>(layers) - 1), kBandLeft, kBandRight, false);
  const PlotAxis y(low, high, kBandBottom, kBandTop, false);
  std::string content;
  for (const double tick : y.Ticks()) {
    content += SvgPath(Concat("M", kBandLeft, " ", Coordinate(y.At(tick)), "H", kBandRight), tick == 0 ? "axis" : "grid");
    content += SvgText(kBandLeft - 8, y.At(tick) + 4, "end label", FormatShort(tick));
  }
  for (const double tick : x.Ticks()) {
    if (tick == std::floor(tick)) {
      content += SvgText(x.At(tick), kBandBottom + 18, "middle label", FormatShort(tick));
    }
  }
  content += SvgPath(Concat("M", kBandLeft, " ", kBandBottom, "H", kBandRight), "axis");
  content += SvgText((kBandLeft + kBandRight) / 2.0, kBandHeight - 8, "middle note", "layer");
  content += SvgText(kBandLeft - 46, kBandTop - 28, "note", EscapeHtml(chart.y_label));
  if (chart.marked_layer >= 0) {
    const double at = x.At(chart.marked_layer);
    content += SvgPath(Concat("M", Coordinate(at), " ", kBandTop, "V", kBandBottom), "threshold");
    content += SvgText(at, kBandBottom + 32, "middle note", Concat("direction: layer ", chart.marked_layer));
  }
  double key = kBandLeft;
  for (const BandCurve& curve : chart.curves) {
    if (!curve.low.empty()) {
      content += SvgPath(Concat(PathThrough(curve.high, x, y, false), PathThrough(curve.low, x, y, true), "Z"),
                         Concat("band ", curve.css_class));
    }
    content += SvgPath(PathThrough(curve.middle, x, y, false), Concat("line ", curve.css_class));
    content += SvgPath(Concat("M", Coordinate(key), " ", kBandTop - 14, "h26"), Concat("line ", curve.css_class));
    content += SvgText(key + 32, kBandTop - 10, Concat("series ", curve.css_class), EscapeHtml(curve.name));
    key += 60 + 7.2 * static_cast<double>(curve.name.size());
  }
  return SvgChart(chart.id, chart.title, chart.description, kBandWidth, kBandHeight, content);
}

}  // namespace bearing::jobs
