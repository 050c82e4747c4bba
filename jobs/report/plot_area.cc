#include "jobs/report/plot_area.h"

#include <algorithm>
#include <cmath>

#include "jobs/report/html_text.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

std::vector<double> LinearTicks(double low, double high) {
  const double raw = (high - low) / 6;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = power;
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    step = factor * power;
    if (step >= raw) break;
  }
  std::vector<double> ticks;
  for (double tick = std::ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) {
    ticks.push_back(std::fabs(tick) < step * 1e-9 ? 0 : tick);
  }
  return ticks;
}

std::vector<double> LogarithmicTicks(double low, double high) {
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::ceil(std::log10(high)));
  const bool only_powers = last - first > 3;
  std::vector<double> ticks;
  for (int exponent = first; exponent <= last; ++exponent) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10, exponent);
      if (tick < low || tick > high || (only_powers && factor != 1.0)) continue;
      ticks.push_back(tick);
    }
  }
  return ticks;
}

}  // namespace

PlotAxis::PlotAxis(double low, double high, double from, double to, bool logarithmic)
    : low_(low), high_(high), from_(from), to_(to), logarithmic_(logarithmic) {
  if (high_ > low_) return;
  const double room = logarithmic ? 0 : std::max(1.0, std::fabs(low)) / 2;
  low_ = logarithmic ? low / 2 : low - room;
  high_ = logarithmic ? low * 2 : low + room;
}

double PlotAxis::At(double value) const {
  const double share = logarithmic_ ? std::log(value / low_) / std::log(high_ / low_) : (value - low_) / (high_ - low_);
  return from_ + std::clamp(share, 0.0, 1.0) * (to_ - from_);
}

std::vector<double> PlotAxis::Ticks() const { return logarithmic_ ? LogarithmicTicks(low_, high_) : LinearTicks(low_, high_); }

std::string SvgText(double x, double y, std::string_view css_class, std::string_view escaped) {
  return Concat("<text x=\"", Coordinate(x), "\" y=\"", Coordinate(y), "\" class=\"", css_class, "\">", escaped, "</text>");
}

std::string SvgPath(std::string_view data, std::string_view css_class) {
  return Concat("<path d=\"", data, "\" class=\"", css_class, "\"/>");
}

std::string SvgChart(std::string_view id, std::string_view title, std::string_view description, int width, int height,
                     std::string_view content) {
  return Concat("<svg class=\"chart\" role=\"img\" aria-labelledby=\"", id, "-title ", id, "-desc\" width=\"", width,
                "\" height=\"", height, "\" viewBox=\"0 0 ", width, " ", height, "\"><title id=\"", id, "-title\">",
                EscapeHtml(title), "</title><desc id=\"", id, "-desc\">", EscapeHtml(description), "</desc>", content,
                "</svg>");
}

}  // namespace bearing::jobs
