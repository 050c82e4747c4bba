#include <algorithm>
#include <cmath>
#include <tuple>

#include "jobs/report/html_parts.h"
#include "jobs/report/html_text.h"
#include "jobs/report/probe_report.h"
#include "jobs/report/report_style.h"
#include "jobs/report/svg_bands.h"
#include "jobs/report/svg_matrix.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using Measured = ProbeReport::Measured;

constexpr const char* kSetLines[] = {"line-a", "line-b"};
constexpr size_t kShownPrompts = 2;  // Maps of tokens of each set.
constexpr size_t kShownTokens = 64;  // The last ones.
constexpr size_t kShownHeads = 12;   // Lines of the table.

std::string ScrollingFigure(const std::string& title, const std::string& explanation, const std::string& svg) {
  if (svg.empty()) return "";
  return Concat("<figure><figcaption><h3>", EscapeHtml(title), "</h3><p>", EscapeHtml(explanation), "</p></figcaption>",
                ScrollBox(title, svg), "</figure>");
}

std::string ByLayer(const ProbeReport& report, size_t k, bool cosine) {
  BandChart chart;
  chart.id = Concat(cosine ? "cosine-" : "projection-", k);
  chart.title = cosine ? "Cosine with the direction by layer" : "Projection by layer";
  chart.description =
      "Mean over the prompts of each set at their last token, with the range from the 10th to the 90th percentile.";
  chart.y_label = cosine ? "cosine" : "projection";
  chart.marked_layer = report.directions[k].layer;
  for (size_t s = 0; s < report.sets.size(); ++s) {
    const Measured& of = report.sets[s].directions[k];
    const ProbeReport::Curve& curve = cosine ? of.cosine : of.projection;
    chart.curves.push_back({report.sets[s].label, kSetLines[s], curve.mean, curve.q10, curve.q90});
  }
  return ScrollingFigure(chart.title,
                         cosine ? "The projection divided by the norm of the residual stream."
                                : "The last token's residual stream at the input of each layer; the last value is "
                                  "the input of the final norm.",
                         RenderBands(chart));
}

// What is shown of the writes: the second set minus the first, or the only one.
struct Shown {
  std::vector<double> attention, mlp;
  std::vector<std::vector<double>> heads;
};

Shown Writes(const ProbeReport& report, size_t k) {
  const Measured& last = report.sets.back().directions[k];
  Shown shown{last.attention, last.mlp, last.heads};
  if (report.sets.size() == 1) return shown;
  const Measured& first = report.sets.front().directions[k];
  for (size_t l = 0; l < shown.attention.size(); ++l) {
    shown.attention[l] -= first.attention[l];
    shown.mlp[l] -= first.mlp[l];
    for (size_t h = 0; h < shown.heads[l].size(); ++h) shown.heads[l][h] -= first.heads[l][h];
  }
  return shown;
}

std::string HeadTable(const Shown& shown) {
  std::vector<std::tuple<double, size_t, size_t>> heads;
  for (size_t l = 0; l < shown.heads.size(); ++l) {
    for (size_t h = 0; h < shown.heads[l].size(); ++h) heads.emplace_back(shown.heads[l][h], l, h);
  }
  const size_t count = std::min(kShownHeads, heads.size());
  std::partial_sort(heads.begin(), heads.begin() + static_cast<std::ptrdiff_t>(count), heads.end(),
                    [](const auto& a, const auto& b) { return std::fabs(std::get<0>(a)) > std::fabs(std::get<0>(b)); });
  std::string rows;
  for (size_t i = 0; i < count; ++i) {
    const auto& [value, layer, head] = heads[i];
    rows += Concat("<tr><td class=\"num\">", layer, "</td><td class=\"num\">", head, "</td><td class=\"num\">",
                   FormatFixed(value, 4), "</td></tr>");
  }
  return Concat(
      "<table><caption>The largest contributions first</caption><thead><tr><th scope=\"col\" class=\"num\">Layer</th><th "
      "scope=\"col\" class=\"num\">Head</th>"
      "<th scope=\"col\" class=\"num\">Contribution</th></tr></thead><tbody>",
      rows, "</tbody></table>");
}

std::string Contributions(const ProbeReport& report, size_t k) {
  const Shown shown = Writes(report, k);
  const std::string what = report.sets.size() == 2
                               ? Concat("Difference of the means: ", report.sets[1].label, " minus ", report.sets[0].label, ".")
                               : "Mean over the prompts.";
  BandChart chart;
  chart.id = Concat("writes-", k);
  chart.title = "What attention and MLP of each layer write along the direction";
  chart.description = "Contributions to the projection of the last token, layer by layer.";
  chart.y_label = "contribution";
  chart.curves = {{"attention", "line-a", shown.attention, {}, {}}, {"MLP", "line-b", shown.mlp, {}, {}}};
  MatrixMap map;
  map.id = Concat("heads-", k);
  map.title = "Attention heads";
  map.description = "Contribution of each attention head to the projection of the last token.";
  map.row_axis = "head";
  map.column_axis = "layer";
  for (int h = 0; h < report.num_heads; ++h) {
    map.row_labels.push_back(Concat(h));
    std::vector<double> row;
    for (const std::vector<double>& layer : shown.heads) row.push_back(layer[static_cast<size_t>(h)]);
    map.values.push_back(std::move(row));
  }
  return Concat(ScrollingFigure(chart.title, what, RenderBands(chart)),
                ScrollingFigure("What each attention head writes along the direction", what, RenderMatrix(map)),
                "<h3>The heads that contribute most</h3>", HeadTable(shown));
}

std::string TokenMaps(const ProbeReport& report, size_t k) {
  std::string out;
  for (size_t s = 0; s < report.sets.size(); ++s) {
    const ProbeReport::Set& set = report.sets[s];
    for (size_t i = 0; i < std::min(kShownPrompts, set.tokens.size()); ++i) {
      const ProbeReport::TokenMap& tokens = set.tokens[i];
      const size_t all = tokens.tokens.size();
      const size_t first = all > kShownTokens ? all - kShownTokens : 0;
      MatrixMap map;
      map.id = Concat("tokens-", k, "-", s, "-", i);
      map.title = Concat("Prompt ", tokens.prompt + 1, " of ", set.label);
      map.description = "Cosine of the residual stream with the direction, token by token, at the input of each layer.";
      map.row_axis = "token";
      map.column_axis = "layer";
      map.visible_spaces = true;
      map.row_labels.assign(tokens.tokens.begin() + static_cast<std::ptrdiff_t>(first), tokens.tokens.end());
      map.values.assign(tokens.cosine[k].begin() + static_cast<std::ptrdiff_t>(first), tokens.cosine[k].end());
      const std::string cut =
          first > 0 ? Concat(" The last ", kShownTokens, " of ", all, " tokens; all are in probe.safetensors.") : "";
      out += ScrollingFigure(map.title, map.description + cut, RenderMatrix(map));
    }
  }
  return out.empty() ? "" : Concat("<h3>Token by token</h3>", out);
}

std::string SettingsTable(const ProbeReport& report) {
  std::string rows;
  const auto row = [&rows](const std::string& name, const std::string& value) {
    rows += Concat("<tr><th scope=\"row\">", EscapeHtml(name), "</th><td>", EscapeHtml(value), "</td></tr>");
  };
  row("Model", Concat(report.model_name, ", ", report.num_layers, " layers, ", report.num_heads, " heads"));
  row("Model digest", report.model_digest);
  row("Computed in", report.dtype);
  for (const ProbeReport::Set& set : report.sets) row(set.label, Concat(set.prompts, " prompts"));
  for (const ProbeReport::Direction& direction : report.directions) {
    row(direction.name, Concat("sha256 ", direction.sha256));
  }
  row("Contributions add up to the projection within", Concat(FormatShort(report.largest_remainder), " of the norm"));
  return Concat("<table class=\"provenance\"><caption>What was probed</caption><tbody>", rows, "</tbody></table>");
}

}  // namespace

std::string RenderProbeHtml(const ProbeReport& report) {
  std::string out = Concat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"><title>Probe of ",
      EscapeHtml(report.model_name), " · Bearing</title><style>", ReportStyle(), BandStyle(),
      "</style></head>\n<body><header><h1>Probe of ", EscapeHtml(report.model_name), "</h1><p>Bearing ",
      EscapeHtml(report.version), " · ", EscapeHtml(report.created), "</p></header>\n<main>");
  for (size_t k = 0; k < report.directions.size(); ++k) {
    out += Concat("<section><h2>", EscapeHtml(report.directions[k].name), "</h2>", ByLayer(report, k, /*cosine=*/true),
                  ByLayer(report, k, /*cosine=*/false), Contributions(report, k), TokenMaps(report, k), "</section>\n");
  }
  return Concat(out, "<section><h2>Run</h2>", SettingsTable(report), "</section></main></body></html>\n");
}

}  // namespace bearing::jobs
