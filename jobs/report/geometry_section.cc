#include "jobs/report/geometry_section.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "jobs/report/html_parts.h"
#include "jobs/report/html_text.h"
#include "jobs/report/plot_area.h"
#include "jobs/report/svg_lines.h"
#include "jobs/report/svg_matrix.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using GeometryLayer = ReportData::LayerGeometry;

constexpr int kPanels = 8;  // Scatter plots: as many layers, evenly spread, the chosen one among them.

int ChosenLayer(const ReportData& data) {
  const bool found = data.selected >= 0 && data.selected < static_cast<int>(data.candidates.size());
  const int layer = found ? data.candidates[static_cast<size_t>(data.selected)].layer : -1;
  return layer < static_cast<int>(data.geometry.size()) ? layer : -1;
}

std::string SeparationCurves(const ReportData& data) {
  LineChart chart;
  chart.id = "geometry";
  chart.title = "Separation of the two sets by layer";
  chart.description =
      "By layer: the share of variance of the first principal component, the cosine between it and the mean difference, and "
      "the "
      "probability that a positive prompt lies further along the mean difference than a negative one.";
  chart.y_label = "share, cosine, probability";
  chart.logarithmic = false;
  chart.series = {{"PC1, variance", "line-a", {}}, {"cos(PC1, d)", "line-b", {}}, {"AUROC", "line-c", {}}};
  for (const GeometryLayer& layer : data.geometry) {
    chart.series[0].values.push_back(layer.pc1_share);
    chart.series[1].values.push_back(layer.pc1_cosine);
    chart.series[2].values.push_back(layer.auroc);
  }
  chart.marked_layer = ChosenLayer(data);
  return RenderLines(chart);
}

// Counts of both sets in equal bins, as two outlines over each other.
std::string ProjectionHistogram(const GeometryLayer& layer, size_t positives, int index) {
  constexpr int kWidth = 760, kHeight = 260, kLeft = 48, kRight = 740, kTop = 24, kBottom = 212, kBins = 30;
  const auto [low, high] = std::minmax_element(layer.projections.begin(), layer.projections.end());
  if (!(*high > *low)) return "";
  const PlotAxis x(*low, *high, kLeft, kRight, false);
  std::vector<int> counts[2] = {std::vector<int>(kBins), std::vector<int>(kBins)};
  for (size_t i = 0; i < layer.projections.size(); ++i) {
    const double share = (layer.projections[i] - *low) / (*high - *low);
    ++counts[i < positives ? 0 : 1][static_cast<size_t>(std::min<double>(kBins - 1, std::floor(share * kBins)))];
  }
  const int most =
      std::max(*std::max_element(counts[0].begin(), counts[0].end()), *std::max_element(counts[1].begin(), counts[1].end()));
  const PlotAxis y(0, most, kBottom, kTop, false);
  std::string content = SvgPath(Concat("M", kLeft, " ", kBottom, "H", kRight), "axis");
  for (const double tick : y.Ticks()) {
    if (tick != std::floor(tick)) continue;
    content += SvgPath(Concat("M", kLeft, " ", Coordinate(y.At(tick)), "H", kRight), "grid");
    content += SvgText(kLeft - 8, y.At(tick) + 4, "end label", FormatShort(tick));
  }
  content += SvgText(kLeft - 36, kTop - 10, "note", "prompts");
  for (const double tick : x.Ticks()) content += SvgText(x.At(tick), kBottom + 18, "middle label", FormatShort(tick));
  for (int side = 0; side < 2; ++side) {
    std::string path = Concat("M", kLeft, " ", kBottom);
    for (int bin = 0; bin < kBins; ++bin) {
      path += Concat("V", Coordinate(y.At(counts[side][static_cast<size_t>(bin)])), "H",
                     Coordinate(kLeft + (kRight - kLeft) * (bin + 1.0) / kBins));
    }
    content += SvgPath(Concat(path, "V", kBottom), side == 0 ? "line line-a" : "line line-b");
  }
  content += SvgText(kRight, kTop - 8, "end series line-a", "positive");
  content += SvgText(kRight - 70, kTop - 8, "end series line-b", "negative");
  content += SvgText((kLeft + kRight) / 2.0, kHeight - 8, "middle note", "projection on the mean difference");
  return SvgChart("projections", Concat("Projections at layer ", index), "Number of prompts of each set by their projection.",
                  kWidth, kHeight, content);
}

std::vector<int> PanelLayers(const ReportData& data) {
  const int layers = static_cast<int>(data.geometry.size());
  std::set<int> chosen;
  if (ChosenLayer(data) >= 0) chosen.insert(ChosenLayer(data));
  for (int i = 0; i < kPanels && static_cast<int>(chosen.size()) < std::min(kPanels, layers); ++i) {
    chosen.insert((layers - 1) * (i + 1) / kPanels);
  }
  return {chosen.begin(), chosen.end()};
}

std::string ScatterPanel(const GeometryLayer& layer, size_t positives, int index, double left, double top, double size,
                         bool is_chosen) {
  const auto [low1, high1] = std::minmax_element(layer.pc1.begin(), layer.pc1.end());
  const auto [low2, high2] = std::minmax_element(layer.pc2.begin(), layer.pc2.end());
  const PlotAxis x(*low1, *high1, left + 8, left + size - 8, false);
  const PlotAxis y(*low2, *high2, top + size - 8, top + 8, false);
  std::string out = Concat("<rect x=\"", Coordinate(left), "\" y=\"", Coordinate(top), "\" width=\"", Coordinate(size),
                           "\" height=\"", Coordinate(size), "\" class=\"frame\"/>");
  for (size_t i = 0; i < layer.pc1.size(); ++i) {
    out += Concat("<circle cx=\"", Coordinate(x.At(layer.pc1[i])), "\" cy=\"", Coordinate(y.At(layer.pc2[i])),
                  "\" r=\"2.2\" class=\"", i < positives ? "dot" : "dot-pass", "\"/>");
  }
  return out + SvgText(left + size / 2, top - 6, "middle note",
                       Concat("layer ", index, is_chosen ? " (chosen)" : "", ": ", FormatPercent(layer.pc1_share)));
}

std::string ComponentScatter(const ReportData& data) {
  constexpr int kColumns = 4;
  constexpr double kSize = 170, kGap = 18, kHead = 26;
  const std::vector<int> layers = PanelLayers(data);
  std::string content;
  for (size_t i = 0; i < layers.size(); ++i) {
    const double left = static_cast<double>(i % kColumns) * (kSize + kGap);
    const double top = kHead + static_cast<double>(i / kColumns) * (kSize + kHead + kGap);
    content += ScatterPanel(data.geometry[static_cast<size_t>(layers[i])], data.geometry_positives, layers[i], left, top, kSize,
                            layers[i] == ChosenLayer(data));
  }
  const auto rows = static_cast<double>((layers.size() + kColumns - 1) / kColumns);
  return SvgChart(
      "pca", "Principal components by layer",
      "First component to the right, second upwards; open points are positive prompts, filled ones negative. The share is "
      "that of the first component.",
      static_cast<int>(kColumns * (kSize + kGap)), static_cast<int>(rows * (kSize + kHead + kGap)), content);
}

std::string CosineMatrices(const ReportData& data) {
  const ChosenCosines cosines = CosinesOfChosen(data);
  if (cosines.layers == nullptr) return "";
  const Candidate& chosen = data.candidates[static_cast<size_t>(data.selected)];
  MatrixMap layers;
  layers.id = "layer-cosines";
  layers.title = Concat("Cosine between the mean differences of two layers at position ", FormatFixed(chosen.position, 0));
  layers.description = "How far one direction stands for its neighbours: 1 is the same direction, 0 is none in common.";
  layers.row_axis = "layer";
  layers.column_axis = "layer";
  layers.values = *cosines.layers;
  layers.scale = 1;
  for (size_t layer = 0; layer < layers.values.size(); ++layer) layers.row_labels.push_back(Concat(layer));
  MatrixMap positions;
  positions.id = "position-cosines";
  positions.title = Concat("Cosine between the mean differences of two positions at layer ", chosen.layer);
  positions.description = layers.description;
  positions.row_axis = "position";
  positions.column_axis = "position";
  positions.values = *cosines.positions;
  positions.scale = 1;
  const int count = static_cast<int>(positions.values.size());
  for (int p = 0; p < count; ++p) {
    positions.row_labels.push_back(FormatFixed(p - count, 0));
    positions.column_labels.push_back(FormatFixed(p - count, 0));
  }
  return Concat("<h3>", layers.title, "</h3>", ScrollBox("Cosines of layers", RenderMatrix(layers)), "<h3>", positions.title,
                "</h3>", ScrollBox("Cosines of positions", RenderMatrix(positions)));
}

std::string GeometryTable(const ReportData& data) {
  std::string rows;
  for (size_t i = 0; i < data.geometry.size(); ++i) {
    const GeometryLayer& layer = data.geometry[i];
    rows += Concat("<tr><th scope=\"row\" class=\"num\">", i, "</th>");
    for (const double value : {layer.pc1_share, layer.pc2_share, layer.pc1_cosine, layer.auroc, layer.silhouette}) {
      rows += Concat("<td class=\"num\">", FormatFixed(value, 3), "</td>");
    }
    for (const double value : {layer.difference_norm, layer.positive_norm, layer.negative_norm}) {
      rows += Concat("<td class=\"num\">", FormatShort(value), "</td>");
    }
    rows += "</tr>";
  }
  std::string head;
  for (const char* name :
       {"Layer", "PC1", "PC2", "cos(PC1, d)", "AUROC", "Silhouette", "|d|", "positive |x|", "negative |x|"}) {
    head += Concat("<th scope=\"col\" class=\"num\">", name, "</th>");
  }
  return Concat("<details><summary>All numbers</summary>",
                ScrollBox("Geometry by layer", Concat("<table><caption>Geometry by layer</caption><thead><tr>", head,
                                                      "</tr></thead><tbody>", rows, "</tbody></table>")),
                "</details>");
}

}  // namespace

ChosenCosines CosinesOfChosen(const ReportData& data) {
  if (data.selected < 0 || data.selected >= static_cast<int>(data.candidates.size())) return {};
  const Candidate& chosen = data.candidates[static_cast<size_t>(data.selected)];
  const int position = chosen.position + static_cast<int>(data.layer_cosines.size());
  if (position < 0 || position >= static_cast<int>(data.layer_cosines.size())) return {};
  if (chosen.layer < 0 || chosen.layer >= static_cast<int>(data.position_cosines.size())) return {};
  return {&data.layer_cosines[static_cast<size_t>(position)], &data.position_cosines[static_cast<size_t>(chosen.layer)]};
}

std::string GeometrySection(const ReportData& data) {
  if (data.geometry.empty()) return "";
  const int chosen = ChosenLayer(data);
  std::string out = Concat("<p>Residuals of ", data.geometry_positives, " positive and ",
                           data.geometry.front().pc1.size() - data.geometry_positives,
                           " negative training prompts at their last token; d is the difference of the means.</p>",
                           ScrollBox("Separation by layer", SeparationCurves(data)));
  if (chosen >= 0) {
    const std::string histogram =
        ProjectionHistogram(data.geometry[static_cast<size_t>(chosen)], data.geometry_positives, chosen);
    if (!histogram.empty()) {
      out += Concat("<h3>Projections at layer ", chosen, "</h3>", ScrollBox("Projections", histogram));
    }
  }
  return Concat(out, "<h3>Principal components</h3>", ScrollBox("Principal components", ComponentScatter(data)),
                CosineMatrices(data), GeometryTable(data));
}

}  // namespace bearing::jobs
