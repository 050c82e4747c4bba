#include "jobs/report/heatmap_panel.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "jobs/report/color_scale.h"
#include "jobs/report/html_text.h"
#include "jobs/report/svg_heatmap.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using Score = std::optional<double>;

// What one of the three maps shows.
struct Panel {
  const char* id;
  const char* name;
  std::string explanation;  // Plain text.
  Score Candidate::*score;
  int decimals;
  // Signed distance past the threshold, positive = bad, in the unit of the colours.
  std::function<double(double)> badness;
  std::string middle;
  // The score at `badness`, for the ends of the legend.
  std::function<std::string(double)> label;
};

std::vector<Panel> Panels(const ReportData& data) {
  const double kl_max = data.rule.kl_max;
  const double induce_min = data.rule.induce_min;
  return {
      {"bypass", "Bypass",
       "Mean metric of positive prompts with the direction ablated: the lower, the more of the concept is gone.",
       &Candidate::bypass, 2, [](double value) { return value; }, "0 (even odds)",
       [](double badness) { return FormatFixed(badness, 1); }},
      {"induce", "Induce",
       Concat("Mean metric of negative prompts with the mean difference added: a candidate needs at least ",
              FormatShort(induce_min), "."),
       &Candidate::induce, 2, [induce_min](double value) { return induce_min - value; },
       Concat("induce_min ", FormatShort(induce_min)),
       [induce_min](double badness) { return FormatFixed(induce_min - badness, 1); }},
      {"kl", "KL divergence",
       Concat("How much the ablation changes what is said after negative prompts (logarithmic colours): a candidate may have "
              "at most ",
              FormatShort(kl_max), "."),
       &Candidate::kl, 4, [kl_max](double value) { return std::log2(std::max(value, 1e-6) / kl_max); },
       Concat("kl_max ", FormatShort(kl_max)), [kl_max](double badness) { return FormatShort(kl_max * std::exp2(badness)); }},
  };
}

const char* WhyUnscored(Discard reason) {
  switch (reason) {
    case Discard::kInduce:
      return "not scored: stopped, induce is below its threshold";
    case Discard::kKl:
      return "not scored: stopped, KL is above its threshold";
    case Discard::kPrunedLayer:
      return "not scored: one of the last layers, which are left out";
    case Discard::kZeroNorm:
      return "not scored: the two means are equal here, there is no direction";
    default:
      return "not scored";
  }
}

HeatmapCell::Fill UnscoredFill(Discard reason) {
  if (reason == Discard::kZeroNorm) return HeatmapCell::Fill::kZero;
  if (reason == Discard::kPrunedLayer) return HeatmapCell::Fill::kPruned;
  return HeatmapCell::Fill::kStopped;
}

std::string WhyDiscarded(Discard reason) {
  return reason == Discard::kNone ? "passes all tests" : Concat("discarded: ", DiscardName(reason));
}

// How far past the threshold the ends of the colours are. Each side has its own reach, or the few good candidates would be pale
// beside many bad ones; it ends at the 90th percentile, so that one outlier does not make all others pale.
struct ColorReach {
  double good = 1;
  double bad = 1;
  // -1 .. 1
  double Share(double badness) const { return badness < 0 ? badness / good : badness / bad; }
};

ColorReach ReachOf(const ReportData& data, const Panel& panel) {
  std::vector<double> good;
  std::vector<double> bad;
  for (const Candidate& candidate : data.candidates) {
    const Score score = candidate.*panel.score;
    if (!score.has_value() || !std::isfinite(*score)) continue;
    const double badness = panel.badness(*score);
    (badness < 0 ? good : bad).push_back(std::fabs(badness));
  }
  const auto end = [](std::vector<double>& distances) {
    if (distances.empty()) return 0.0;
    std::sort(distances.begin(), distances.end());
    return distances[(distances.size() - 1) * 9 / 10];
  };
  ColorReach reach = {end(good), end(bad)};
  if (reach.good == 0) reach.good = reach.bad;
  if (reach.bad == 0) reach.bad = reach.good;
  return reach.good == 0 ? ColorReach() : reach;
}

Heatmap BuildMap(const ReportData& data, const Panel& panel, const std::string& id_prefix) {
  Heatmap map;
  map.id = id_prefix + panel.id;
  map.title = Concat(panel.name, " by layer and position");
  map.columns = data.num_layers;
  map.first_pruned_column = static_cast<int>(std::clamp<int64_t>(data.rule.first_pruned_layer(), 0, data.num_layers));
  for (int position = -data.num_positions; position < 0; ++position) {
    const size_t index = position + data.num_positions;
    const std::string token = index < data.position_tokens.size() ? data.position_tokens[index] : "";
    map.rows.emplace_back(FormatFixed(position, 0), token);
  }
  const ColorReach reach = ReachOf(data, panel);
  map.best = panel.label(-reach.good);
  map.middle = panel.middle;
  map.worst = panel.label(reach.bad);
  size_t scored = 0;
  for (size_t i = 0; i < data.candidates.size(); ++i) {
    const Candidate& candidate = data.candidates[i];
    const Discard reason = Classify(candidate, data.rule);
    const Score score = candidate.*panel.score;
    HeatmapCell cell;
    cell.row = candidate.position + data.num_positions;
    cell.column = candidate.layer;
    cell.chosen = static_cast<int>(i) == data.selected;
    cell.passes = reason == Discard::kNone;
    const std::string place = Concat("layer ", candidate.layer, ", position ", FormatFixed(candidate.position, 0), ": ");
    if (score.has_value()) {
      ++scored;
      cell.step = ColorStep(std::isfinite(*score) ? reach.Share(panel.badness(*score)) : 1);
      cell.title = Concat(place, panel.name, " ", FormatFixed(*score, panel.decimals), "; ", WhyDiscarded(reason));
    } else {
      cell.fill = UnscoredFill(reason);
      cell.title = Concat(place, WhyUnscored(reason));
    }
    if (cell.chosen) cell.title += "; chosen";
    map.cells.push_back(std::move(cell));
  }
  map.description = Concat(panel.explanation, " ", scored, " of ", data.candidates.size(), " candidates have this score.");
  return map;
}

std::string LegendItem(std::string_view swatch, std::string_view text) {
  return Concat("<li><svg width=\"18\" height=\"18\" aria-hidden=\"true\">", swatch, "</svg>", text, "</li>");
}

// Says what the marks mean; only those that occur.
std::string SharedLegend(const std::vector<Heatmap>& maps, bool complete) {
  std::set<HeatmapCell::Fill> fills;
  bool passes = false;
  bool chosen = false;
  for (const Heatmap& map : maps) {
    for (const HeatmapCell& cell : map.cells) {
      fills.insert(cell.fill);
      passes = passes || cell.passes;
      chosen = chosen || cell.chosen;
    }
  }
  std::string out = "<ul class=\"legend\">";
  out += LegendItem("<rect width=\"9\" height=\"18\" class=\"q1\"/><rect x=\"9\" width=\"9\" height=\"18\" class=\"q13\"/>",
                    "blue: on the wanted side; orange: on the other");
  if (chosen) out += LegendItem("<rect x=\"2\" y=\"2\" width=\"14\" height=\"14\" class=\"ring\"/>", "chosen candidate");
  if (passes) out += LegendItem("<circle cx=\"9\" cy=\"9\" r=\"4\" class=\"pass\"/>", "passes all tests");
  if (fills.count(HeatmapCell::Fill::kStopped) > 0) {
    out += LegendItem("<rect width=\"18\" height=\"18\" fill=\"url(#" + maps[0].id + "-stopped)\"/>",
                      complete ? "not scored" : "not scored: an earlier, cheaper test (induce, then KL) had failed already");
  }
  if (fills.count(HeatmapCell::Fill::kPruned) > 0) {
    out +=
        LegendItem("<rect width=\"18\" height=\"18\" class=\"pruned\"/>", "not scored: last layers, which the rule leaves out");
  }
  if (fills.count(HeatmapCell::Fill::kZero) > 0) {
    out += LegendItem("<rect width=\"18\" height=\"18\" fill=\"url(#" + maps[0].id + "-zero)\"/>",
                      "the two means are equal: no direction");
  }
  return out + "</ul>";
}

}  // namespace

std::string HeatmapSection(const ReportData& data) { return HeatmapSection(data, ""); }

std::string HeatmapSection(const ReportData& data, const std::string& id_prefix) {
  const std::vector<Panel> panels = Panels(data);
  std::vector<Heatmap> maps;
  maps.reserve(panels.size());
  for (const Panel& panel : panels) maps.push_back(BuildMap(data, panel, id_prefix));
  std::string out =
      "<p>Each cell is a candidate: the difference of the two means at one "
      "layer and one position after the prompt. Point at a cell for its score; all scores are in a table below.</p>";
  out += SharedLegend(maps, data.complete);
  for (size_t i = 0; i < panels.size(); ++i) {
    out += Concat("<figure><figcaption><h3>", panels[i].name, "</h3><p>", EscapeHtml(panels[i].explanation),
                  "</p></figcaption><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"",
                  EscapeHtml(maps[i].title), "\">", RenderHeatmap(maps[i]), "</div></figure>");
  }
  return out;
}

}  // namespace bearing::jobs
