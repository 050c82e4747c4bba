// The table of costs in report.html and report.json.
#include "jobs/report/cost_section.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "jobs/cost_statistics.h"
#include "jobs/report/report.h"
#include "tests/jobs/markup_checker.h"
#include "tests/jobs/report_fixture.h"

namespace bearing::jobs {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

json Costs(const std::vector<std::string>& interventions) {
  PairedRatio ratio(interventions.size());
  ratio.Add(1, std::vector<double>(interventions.size(), 0.25));
  std::vector<double> other(interventions.size(), 0.75);
  other.back() = 0.5;
  ratio.Add(1, other);
  return {{"measurements", json::array({{{"kind", "choices"},
                                         {"set", "arc <easy>"},
                                         {"items", 2},
                                         {"unit", "questions"},
                                         {"metrics", json::array({RatioMetric("acc", interventions, ratio)})}},
                                        {{"kind", "completions"},
                                         {"set", "own completions"},
                                         {"items", 2},
                                         {"unit", "completions"},
                                         {"tokens", 99},
                                         {"metrics", json::array({DivergenceMetric("kl", interventions, ratio)})}}})}};
}

TEST(CostSectionTest, ShowsValuesDifferencesAndErrors) {
  ReportData data = ExampleReport(false);
  data.costs.clear();
  EXPECT_EQ(CostSection(data), "");
  data.costs = CostRowsOf(Costs({"baseline", "ablation"}));
  const std::string html = CostSection(data);
  EXPECT_THAT(html, HasSubstr("arc &lt;easy&gt;"));
  EXPECT_THAT(html, HasSubstr("50.0 % <small>± 25.0</small>"));
  EXPECT_THAT(html, HasSubstr("−12.5 % <small>± 12.5</small>"));
  EXPECT_THAT(html, HasSubstr("2 completions, 99 tokens"));
  EXPECT_THAT(html, Not(HasSubstr("Direction added")));
  const Markup markup = ReadMarkup(RenderReportHtml(data));
  EXPECT_EQ(markup.error, "");
  data.costs = CostRowsOf(Costs({"baseline", "ablation", "addition"}));
  EXPECT_THAT(CostSection(data), HasSubstr("Direction added"));
}

TEST(CostSectionTest, JsonHasTheSameNumbers) {
  ReportData data;
  data.costs = CostRowsOf(Costs({"baseline", "ablation"}));
  const json costs = json::parse(RenderReportJson(data))["costs"];
  ASSERT_EQ(costs.size(), 2u);
  EXPECT_EQ(costs[0]["metric"], "acc");
  EXPECT_EQ(costs[0]["values"][1]["difference"], -0.125);
  EXPECT_TRUE(costs[0]["values"][0]["difference"].is_null());
  EXPECT_EQ(costs[1]["tokens"], 99);
  EXPECT_EQ(costs[1]["values"].size(), 1u);
}

TEST(CostSectionTest, WhatIsNotANumberIsShownAsSuch) {
  json costs = Costs({"baseline", "ablation"});
  costs["measurements"][0]["metrics"][0]["values"][1]["value"] = nullptr;
  ReportData data;
  data.costs = CostRowsOf(costs);
  EXPECT_THAT(CostSection(data), HasSubstr("n/a"));
  EXPECT_TRUE(json::parse(RenderReportJson(data))["costs"][0]["values"][1]["value"].is_null());
}

}  // namespace
}  // namespace bearing::jobs
