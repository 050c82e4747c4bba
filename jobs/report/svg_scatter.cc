#include "jobs/report/svg_scatter.h"

#include <algorithm>
#include <cmath>

#include "jobs/report/html_text.h"
#include "jobs/report/plot_area.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr int kWidth = 760;
constexpr int kHeight = 360;
constexpr int kLeft = 68;
constexpr int kRight = 740;
constexpr int kTop = 28;
constexpr int kBottom = 308;
constexpr double kLowestKl = 1e-4;

bool HasBoth(const Candidate& candidate) {
  return candidate.induce.has_value() && candidate.kl.has_value() && std::isfinite(*candidate.induce) &&
         std::isfinite(*candidate.kl);
}

std::string Axes(const PlotAxis& x, const PlotAxis& y) {
  std::string out;
  for (const double tick : y.Ticks()) {
    out += SvgPath(Concat("M", kLeft, " ", Coordinate(y.At(tick)), "H", kRight), "grid");
    out += SvgText(kLeft - 8, y.At(tick) + 4, "end label", FormatShort(tick));
  }
  for (const double tick : x.Ticks()) {
    out += SvgPath(Concat("M", Coordinate(x.At(tick)), " ", kTop, "V", kBottom), "grid");
    out += SvgText(x.At(tick), kBottom + 18, "middle label", FormatShort(tick));
  }
  out += SvgText((kLeft + kRight) / 2.0, kHeight - 12, "middle note", "induce → stronger when added");
  out += SvgText(kLeft - 46, kTop - 12, "note", "KL ↓ less side effect");
  return out;
}

std::string Point(const Candidate& candidate, const ReportData& data, bool chosen, const PlotAxis& x, const PlotAxis& y) {
  const Discard reason = Classify(candidate, data.rule);
  const char* css_class = reason == Discard::kNone ? "dot-pass" : "dot";
  const std::string at = Concat("cx=\"", Coordinate(x.At(*candidate.induce)), "\" cy=\"",
                                Coordinate(y.At(std::max(*candidate.kl, kLowestKl))), "\"");
  const std::string title = Concat("layer ", candidate.layer, ", position ", FormatFixed(candidate.position, 0), ": induce ",
                                   FormatFixed(*candidate.induce, 2), ", KL ", FormatFixed(*candidate.kl, 4));
  std::string out = Concat("<circle ", at, " r=\"4\" class=\"", css_class, "\"><title>", title, "</title></circle>");
  if (chosen) out += Concat("<circle ", at, " r=\"9\" class=\"ring\"/>");
  return out;
}

}  // namespace

std::string RenderScatter(const ReportData& data) {
  double least_induce = data.rule.induce_min;
  double most_induce = data.rule.induce_min;
  double least_kl = data.rule.kl_max;
  double most_kl = data.rule.kl_max;
  int points = 0;
  for (const Candidate& candidate : data.candidates) {
    if (!HasBoth(candidate)) continue;
    ++points;
    least_induce = std::min(least_induce, *candidate.induce);
    most_induce = std::max(most_induce, *candidate.induce);
    least_kl = std::min(least_kl, std::max(*candidate.kl, kLowestKl));
    most_kl = std::max(most_kl, *candidate.kl);
  }
  if (points < 2 || !(least_kl > 0)) return "";
  const double room = 0.04 * (most_induce - least_induce);
  const PlotAxis x(least_induce - room, most_induce + room, kLeft, kRight, false);
  const PlotAxis y(least_kl / 1.3, most_kl * 1.3, kBottom, kTop, true);
  const double induce_at = x.At(data.rule.induce_min);
  const double kl_at = y.At(data.rule.kl_max);
  std::string content =
      Concat("<rect x=\"", Coordinate(induce_at), "\" y=\"", Coordinate(kl_at), "\" width=\"", Coordinate(kRight - induce_at),
             "\" height=\"", Coordinate(kBottom - kl_at), "\" class=\"region\"/>");
  content += Axes(x, y);
  content += SvgPath(Concat("M", Coordinate(induce_at), " ", kTop, "V", kBottom), "threshold");
  content += SvgPath(Concat("M", kLeft, " ", Coordinate(kl_at), "H", kRight), "threshold");
  for (size_t i = 0; i < data.candidates.size(); ++i) {
    if (!HasBoth(data.candidates[i])) continue;
    content += Point(data.candidates[i], data, static_cast<int>(i) == data.selected, x, y);
  }
  // Above the points, so that they can be read.
  content += SvgText(kRight - 6, kl_at - 6, "end note", Concat("kl_max ", FormatShort(data.rule.kl_max)));
  content += SvgText(induce_at + 5, kTop + 10, "note", Concat("induce_min ", FormatShort(data.rule.induce_min)));
  return SvgChart("scatter", "Induce against KL of the scored candidates",
                  Concat(points, " candidates have both scores; the shaded part of the plane passes both thresholds."), kWidth,
                  kHeight, content);
}

}  // namespace bearing::jobs
