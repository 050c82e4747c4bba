#include "jobs/report/search_page.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "jobs/report/html_parts.h"
#include "jobs/report/html_text.h"
#include "jobs/report/plot_area.h"
#include "jobs/report/report_style.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using Json = nlohmann::json;

constexpr int kWidth = 760;
constexpr int kHeight = 380;
constexpr double kLeft = 68;
constexpr double kRight = 740;
constexpr double kTop = 30;
constexpr double kBottom = 328;
constexpr double kLeastKl = 1e-4;  // Smaller ones are drawn at the edge.

double NumberAt(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : NAN;
}

struct Dot {
  int64_t trial = 0;
  double kl = 0;
  double probability = 0;
};

std::vector<Dot> CompletedTrials(const Json& search) {
  std::vector<Dot> dots;
  for (const Json& trial : search.value("trials", Json::array())) {
    const Json score = trial.value("score", Json());
    if (!score.is_object()) continue;
    const Dot dot{trial.value("trial", int64_t{0}), NumberAt(score, "kl"), NumberAt(score, "probability")};
    if (std::isfinite(dot.kl) && std::isfinite(dot.probability)) dots.push_back(dot);
  }
  return dots;
}

std::string ShareText(const Json& point) {
  return Concat(FormatPercent(NumberAt(point, "refusals")), " ± ", FormatFixed(100 * NumberAt(point, "standard_error"), 1));
}

std::string Cell(const std::string& text) { return Concat("<td>", text, "</td>"); }

std::string Range(const Json& strengths) {
  if (!strengths.is_array() || strengths.empty()) return "n/a";
  const auto [least, most] = std::minmax_element(
      strengths.begin(), strengths.end(), [](const Json& a, const Json& b) { return a.get<double>() < b.get<double>(); });
  return Concat(FormatFixed(least->get<double>(), 2), " to ", FormatFixed(most->get<double>(), 2));
}

std::string PointTable(const Json& search) {
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Points\"><table><caption>Points of the "
      "front</caption><thead><tr><th "
      "scope=\"col\">point</th>"
      "<th scope=\"col\">answers that show it</th><th scope=\"col\">KL</th><th scope=\"col\">metric</th>"
      "<th scope=\"col\">layer</th><th scope=\"col\">projected</th><th scope=\"col\">embedding</th>"
      "<th scope=\"col\">attention</th><th scope=\"col\">MLP</th><th scope=\"col\">layers' factors</th>"
      "<th scope=\"col\">trial</th></tr></thead><tbody>";
  const Json baseline = search.value("baseline", Json::object());
  out += Concat("<tr><th scope=\"row\">the model as it is</th>", Cell(ShareText(baseline)), Cell("0"),
                Cell(FormatFixed(NumberAt(baseline, "metric"), 2)), "<td colspan=\"7\"></td></tr>");
  for (const Json& point : search.value("points", Json::array())) {
    out +=
        Concat("<tr><th scope=\"row\">", point.value("point", 0), point.value("on_front", false) ? "" : " (behind the front)",
               "</th>", Cell(ShareText(point)), Cell(FormatFixed(NumberAt(point, "kl"), 4)),
               Cell(FormatFixed(NumberAt(point, "metric"), 2)), Cell(FormatFixed(NumberAt(point, "layer"), 2)));
    for (const char* const key : {"projected", "embedding", "attention", "mlp"}) {
      out += Cell(FormatFixed(NumberAt(point, key), 2));
    }
    out += Concat(Cell(Range(point.value("layer_strengths", Json()))), Cell(Concat(point.value("trial", 0))), "</tr>");
  }
  return out + "</tbody></table></div>";
}

}  // namespace

std::string RenderSearchPlot(const Json& search) {
  const std::vector<Dot> dots = CompletedTrials(search);
  if (dots.size() < 2) return "";
  double most = NumberAt(search.value("baseline", Json::object()), "probability");
  if (!std::isfinite(most)) most = 0;
  double least_kl = 1;
  double most_kl = kLeastKl;
  for (const Dot& dot : dots) {
    most = std::max(most, dot.probability);
    least_kl = std::min(least_kl, std::max(dot.kl, kLeastKl));
    most_kl = std::max(most_kl, dot.kl);
  }
  const PlotAxis x(least_kl / 1.3, most_kl * 1.3, kLeft, kRight, true);
  // Room above the highest point for its label.
  const PlotAxis y(0, 115 * most, kBottom, kTop, false);
  std::string content;
  for (const double tick : y.Ticks()) {
    content += SvgPath(Concat("M", Coordinate(kLeft), " ", Coordinate(y.At(tick)), "H", Coordinate(kRight)), "grid");
    content += SvgText(kLeft - 8, y.At(tick) + 4, "end label", Concat(FormatShort(tick), " %"));
  }
  for (const double tick : x.Ticks()) {
    content += SvgPath(Concat("M", Coordinate(x.At(tick)), " ", Coordinate(kTop), "V", Coordinate(kBottom)), "grid");
    content += SvgText(x.At(tick), kBottom + 18, "middle label", FormatShort(tick));
  }
  content += SvgText((kLeft + kRight) / 2, kHeight - 14, "middle note", "KL of harmless prompts → more side effect");
  content += SvgText(kLeft - 46, kTop - 14, "note", "probability that an answer begins to show the concept");
  std::map<int64_t, const Json*> points;
  const Json list = search.value("points", Json::array());
  for (const Json& point : list) points[point.value("trial", int64_t{-1})] = &point;
  for (const Dot& dot : dots) {
    const auto point = points.find(dot.trial);
    const std::string at = Concat("cx=\"", Coordinate(x.At(std::max(dot.kl, kLeastKl))), "\" cy=\"",
                                  Coordinate(y.At(100 * dot.probability)), "\"");
    std::string title =
        Concat("trial ", dot.trial, ": KL ", FormatFixed(dot.kl, 4), ", probability ", FormatPercent(dot.probability));
    if (point != points.end()) {
      title = Concat("point ", point->second->value("point", 0), ", ", title, ", answers ", ShareText(*point->second));
    }
    content += Concat("<circle ", at, " r=\"4\" class=\"", point != points.end() ? "dot-pass" : "dot", "\"><title>", title,
                      "</title></circle>");
    if (point != points.end()) {
      content += Concat("<circle ", at, " r=\"9\" class=\"ring\"/>");
      content += SvgText(x.At(std::max(dot.kl, kLeastKl)), y.At(100 * dot.probability) - 14, "middle label",
                         Concat(point->second->value("point", 0)));
    }
  }
  return SvgChart("search", "KL against the concept's probability of the trials",
                  Concat(dots.size(), " trials were scored on all prompts; ", points.size(), " points have generated answers."),
                  kWidth, kHeight, content);
}

namespace {

constexpr char kHowToEdit[] =
    "<p>A point becomes weights by <code>bearing edit --model MODEL --search search.json --point NUMBER --out "
    "FOLDER</code>.</p>";

std::string TrialsNote(const Json& search) {
  const Json prompts = search.value("prompts", Json::object());
  return Concat(search.value("trials", Json::array()).size(), " trials, ", search.value("trials_completed", 0),
                " of them scored on all of ", prompts.value("positive", 0), " + ", prompts.value("negative", 0),
                " validation prompts, the others left out by a screen");
}

std::string PointsPart(const Json& search) {
  return Concat(
      "<p>A trial removes a direction from what is written to the residual stream, with strengths by component and layer; no "
      "weight was changed. The points are the trials of which no other has both less of the concept and a smaller KL, and the "
      "run's own direction removed whole (trial 0); their answers to the positive prompts were generated.</p>",
      PointTable(search), kHowToEdit);
}

std::string TrialsPart(const Json& search) {
  const std::string plot = RenderSearchPlot(search);
  return plot.empty() ? "" : ScrollBox("Trials", plot);
}

}  // namespace

std::string RenderSearchPage(const Json& search) {
  const std::string title =
      Concat("Search: ", EscapeHtml(search.value("concept", "")), " in ", EscapeHtml(search.value("model", "")));
  return Concat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"><title>",
      title, " · Bearing</title><style>", ReportStyle(), "</style></head>\n<body><header><h1>", title, "</h1><p>Bearing ",
      EscapeHtml(search.value("version", "")), " · ", TrialsNote(search), "</p></header>\n<main><section><h2>Points</h2>",
      PointsPart(search), "</section>\n<section><h2>Trials</h2>", TrialsPart(search), "</section></main></body></html>\n");
}

std::string SearchSection(const ReportData& data) {
  if (!data.search.is_object()) return "";
  return Concat("<p>Strengths, layer and variant tuned for the least of the concept at the least side effect: ",
                TrialsNote(data.search), ".</p>", PointsPart(data.search), TrialsPart(data.search));
}

nlohmann::ordered_json SearchJson(const ReportData& data) {
  if (!data.search.is_object()) return nullptr;
  nlohmann::ordered_json out;
  for (const char* const key : {"trials_completed", "prompts", "baseline", "points"}) out[key] = data.search.value(key, Json());
  return out;
}

}  // namespace bearing::jobs
