#include "jobs/report/search_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/jobs/markup_checker.h"
#include "tests/jobs/report_fixture.h"

namespace bearing::jobs {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

Json Search() {
  Json search = {{"concept", "<b>refusal</b>"},
                 {"model", "a & b"},
                 {"version", "1"},
                 {"trials_completed", 2},
                 {"prompts", {{"positive", 32}, {"negative", 30}}},
                 {"baseline", {{"refusals", 0.75}, {"standard_error", 0.1}, {"probability", 0.6}, {"metric", 0.5}}},
                 {"points", Json::array()},
                 {"trials", Json::array()}};
  search["points"].push_back({{"point", 0},
                              {"trial", 1},
                              {"refusals", 0.125},
                              {"standard_error", 0.05},
                              {"kl", 0.04},
                              {"metric", -3.0},
                              {"layer", 11.25},
                              {"projected", 0.5},
                              {"embedding", 0.1},
                              {"attention", 1.25},
                              {"mlp", 0.75},
                              {"layer_strengths", {0.25, 1.0}},
                              {"on_front", true}});
  const auto trial = [&](int number, const Json& score) { search["trials"].push_back({{"trial", number}, {"score", score}}); };
  trial(0, {{"probability", 0.5}, {"kl", 0.3}});
  trial(1, {{"probability", 0.1}, {"kl", 0.04}});
  trial(2, nullptr);
  trial(3, {{"probability", nullptr}, {"kl", 0.04}});
  return search;
}

TEST(SearchPageTest, ShowsPointsAndTrials) {
  const std::string page = RenderSearchPage(Search());
  EXPECT_THAT(page, HasSubstr("12.5 % ± 5.0"));
  EXPECT_THAT(page, HasSubstr("75.0 % ± 10.0"));
  EXPECT_THAT(page, HasSubstr("11.25"));
  EXPECT_THAT(page, HasSubstr("0.25 to 1.00"));
  EXPECT_THAT(page, HasSubstr("trial 1: KL 0.0400, probability 10.0 %"));
  EXPECT_THAT(page, Not(HasSubstr("trial 3")));
  EXPECT_THAT(page, HasSubstr("&lt;b&gt;refusal&lt;/b&gt; in a &amp; b"));
  const Markup markup = ReadMarkup(page);
  EXPECT_EQ(markup.error, "");
  EXPECT_TRUE(markup.Find("script").empty());
  EXPECT_EQ(markup.Find("circle", "dot-pass").size(), 1u);
  EXPECT_EQ(markup.Find("circle", "dot").size(), 1u);
}

TEST(SearchPageTest, IsASectionOfTheReportWhereTheRunHasASearch) {
  ReportData data = ExampleReport(false);
  EXPECT_THAT(RenderReportHtml(data), Not(HasSubstr("search-front")));
  EXPECT_TRUE(Json::parse(RenderReportJson(data))["search"].is_null());
  data.search = Search();
  const std::string page = RenderReportHtml(data);
  EXPECT_THAT(page, HasSubstr("<a href=\"#search-front\">"));
  EXPECT_THAT(page, HasSubstr("0.25 to 1.00"));
  EXPECT_THAT(page, HasSubstr("trial 1: KL 0.0400, probability 10.0 %"));
  EXPECT_EQ(ReadMarkup(page).error, "");
  const Json numbers = Json::parse(RenderReportJson(data))["search"];
  EXPECT_EQ(numbers["points"], data.search["points"]);
  EXPECT_FALSE(numbers.contains("trials"));
}

TEST(SearchPageTest, HasNoPlotOfLessThanTwoTrials) {
  Json search = Search();
  search["trials"].erase(1);
  EXPECT_EQ(RenderSearchPlot(search), "");
  EXPECT_THAT(RenderSearchPage(search), HasSubstr("12.5 %"));
  EXPECT_THAT(RenderSearchPage(Json::object()), HasSubstr("</html>"));
}

}  // namespace
}  // namespace bearing::jobs
