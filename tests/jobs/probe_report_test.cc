#include "jobs/report/probe_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "jobs/report/svg_bands.h"
#include "jobs/report/svg_matrix.h"
#include "tests/jobs/markup_checker.h"

namespace bearing::jobs {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHostile[] = "\"><script>alert('x')</script>&copy;\x01\xFF";

ProbeReport::Curve CurveOf(int layers, double first) {
  ProbeReport::Curve curve;
  for (int l = 0; l <= layers; ++l) {
    for (auto* list : {&curve.q10, &curve.q25, &curve.median, &curve.q75, &curve.q90}) list->push_back(first + l);
    curve.mean.push_back(first + l);
  }
  return curve;
}

// Two layers, three heads; with `sets` sets and a prompt of two tokens in each.
ProbeReport Example(int sets, const std::string& text = "t") {
  ProbeReport report;
  report.version = report.created = report.model_name = report.model_digest = report.dtype = text;
  report.num_layers = 2;
  report.num_heads = 3;
  report.directions = {{text, 1, {{"concept", text}}, "00"}, {"other", -1, {}, "11"}};
  for (int s = 0; s < sets; ++s) {
    ProbeReport::Set& set = report.sets.emplace_back();
    set.label = text + std::to_string(s);
    set.suffix = s == 1 ? text : "";
    set.prompts = 5;
    set.norm = {1, 2, 3};
    for (size_t k = 0; k < 2; ++k) {
      set.directions.push_back(
          {CurveOf(2, s), CurveOf(2, -s), 0.5 + s, {1.0 + s, 2}, {3, 4.0 + 2 * s}, {{1, 2, 3}, {4, 5, 6.0 + s}}});
    }
    set.tokens.push_back({0, {text, "\n"}, {{{0.5, -0.5}, {1, 0}}, {{0, 0}, {0, 0}}}});
  }
  return report;
}

TEST(ProbeReportTest, PageIsWellFormedAndSelfContained) {
  for (const int sets : {1, 2}) {
    const std::string html = RenderProbeHtml(Example(sets));
    EXPECT_EQ(ReadMarkup(html).error, "");
    for (const char* forbidden : {"<script", "http:", "https:", "@import", "<link", "<img"}) {
      EXPECT_THAT(html, Not(HasSubstr(forbidden)));
    }
  }
}

TEST(ProbeReportTest, HostileTextIsEscaped) {
  const std::string html = RenderProbeHtml(Example(2, kHostile));
  EXPECT_EQ(ReadMarkup(html).error, "");
  EXPECT_THAT(html, Not(HasSubstr("<script")));
}

TEST(ProbeReportTest, NumbersThatAreNotFiniteLeaveGaps) {
  ProbeReport report = Example(2);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (double& value : report.sets[0].directions[0].projection.mean) value = nan;
  report.sets[1].directions[0].heads[0][0] = std::numeric_limits<double>::infinity();
  report.sets[1].tokens[0].cosine[0][0][0] = nan;
  EXPECT_EQ(ReadMarkup(RenderProbeHtml(report)).error, "");
  EXPECT_TRUE(ProbeJson(report)["sets"][0]["directions"][0]["projection"]["mean"][0].dump() == "null");
}

TEST(ProbeReportTest, JsonHoldsTheDifferenceOfTwoSets) {
  const nlohmann::json json = ProbeJson(Example(2));
  EXPECT_EQ(json["format"], "bearing/probe/v1");
  EXPECT_EQ(json["difference"].size(), 2u);
  const nlohmann::json& of = json["difference"][0];
  EXPECT_EQ(of["projection"], (std::vector<double>{1, 1, 1}));
  EXPECT_EQ(of["cosine"], (std::vector<double>{-1, -1, -1}));
  EXPECT_EQ(of["embedding"], 1.0);
  EXPECT_EQ(of["attention"], (std::vector<double>{1, 0}));
  EXPECT_EQ(of["mlp"], (std::vector<double>{0, 2}));
  EXPECT_EQ(of["heads"][1], (std::vector<double>{0, 0, 1}));
  EXPECT_FALSE(json["sets"][0].contains("suffix"));
  EXPECT_EQ(json["sets"][1]["suffix"], "t");
  EXPECT_FALSE(ProbeJson(Example(1)).contains("difference"));
}

TEST(SvgMatrixTest, ColoursByTheSignAndTheScale) {
  MatrixMap map;
  map.id = "m";
  map.row_axis = "row";
  map.column_axis = "column";
  map.row_labels = {"a", "b"};
  map.values = {{-1, 0}, {0.5, 1}};
  const std::string svg = RenderMatrix(map);
  EXPECT_EQ(ReadMarkup(svg).error, "");
  EXPECT_THAT(svg, HasSubstr("class=\"cell q0\"><title>row a, column 0: −1</title>"));
  EXPECT_THAT(svg, HasSubstr("class=\"cell q7\"><title>row a, column 1: 0</title>"));
  EXPECT_THAT(svg, HasSubstr("class=\"cell q14\"><title>row b, column 1: 1</title>"));
  map.scale = 2;
  EXPECT_THAT(RenderMatrix(map), Not(HasSubstr("class=\"cell q14\"")));
  map.values = {{std::numeric_limits<double>::quiet_NaN()}, {}};
  EXPECT_EQ(RenderMatrix(map), "");
}

TEST(SvgBandsTest, NothingToDrawIsNothing) {
  BandChart chart;
  EXPECT_EQ(RenderBands(chart), "");
  chart.id = "b";
  chart.curves = {{"a", "line-a", {1, 2}, {0, 1}, {2, 3}}};
  EXPECT_THAT(RenderBands(chart), HasSubstr("band line-a"));
}

}  // namespace
}  // namespace bearing::jobs
