#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "jobs/report/report.h"
#include "tests/jobs/report_fixture.h"

namespace bearing::jobs {
namespace {

TEST(ReportJsonTest, RatesAreSharesWithStandardErrors) {
  const ReportData data = ExampleReport(true);
  const Rate rate = data.counts.Of("positive", "baseline");
  EXPECT_EQ(rate.n, 16);
  EXPECT_DOUBLE_EQ(rate.share, 15.0 / 16);
  EXPECT_DOUBLE_EQ(rate.standard_error, std::sqrt(15.0 / 16 / 16 / 16));
  const Rate none = data.counts.Of("positive", "addition");
  EXPECT_EQ(none.n, 0);
  EXPECT_EQ(none.share, 0);
  EXPECT_EQ(none.standard_error, 0);
  EXPECT_EQ(data.counts.Of("negative", "baseline").standard_error, 0);
}

TEST(ReportJsonTest, RatesByCategoryAddUp) {
  ConceptCounts counts;
  counts.Add("negative", "baseline", "b", false);
  counts.Add("positive", "baseline", "b", true);
  counts.Add("positive", "baseline", "b", false);
  counts.Add("positive", "ablation", "b", false);
  counts.Add("positive", "baseline", "a", true);
  const std::vector<CategoryRates> rows = counts.ByCategory();
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].side + rows[0].category + rows[1].side + rows[1].category, "positiveapositiveb");
  EXPECT_EQ(rows[2].side, "negative");
  EXPECT_EQ(rows[1].rates.at("baseline").n, 2);
  EXPECT_DOUBLE_EQ(rows[1].rates.at("baseline").share, 0.5);
  EXPECT_DOUBLE_EQ(rows[1].rates.at("baseline").standard_error, std::sqrt(0.125));
  EXPECT_EQ(rows[1].rates.at("ablation").n, 1);
  EXPECT_FALSE(rows[0].rates.contains("ablation"));
}

TEST(ReportJsonTest, HoldsTheSameNumbers) {
  const ReportData data = ExampleReport(false);
  const nlohmann::json json = nlohmann::json::parse(RenderReportJson(data));
  EXPECT_EQ(json["concept"], "refusal");
  EXPECT_EQ(json["model"]["num_layers"], 32);
  EXPECT_EQ(json["selection"]["selected"]["layer"], 20);
  EXPECT_EQ(json["selection"]["selected"]["position"], -5);
  EXPECT_EQ(json["selection"]["kept"], 7);
  EXPECT_EQ(json["selection"]["first_pruned_layer"], 25);
  const nlohmann::json& candidates = json["selection"]["candidates"];
  ASSERT_EQ(candidates.size(), data.candidates.size());
  for (size_t i = 0; i < data.candidates.size(); ++i) {
    const Candidate& candidate = data.candidates[i];
    EXPECT_EQ(candidates[i]["position"], candidate.position);
    EXPECT_EQ(candidates[i]["layer"], candidate.layer);
    EXPECT_EQ(candidates[i]["discarded_by"], DiscardName(Classify(candidate, data.rule)));
    for (const auto& [key, value] :
         {std::pair("bypass", candidate.bypass), std::pair("induce", candidate.induce), std::pair("kl", candidate.kl)}) {
      if (value.has_value()) {
        EXPECT_DOUBLE_EQ(candidates[i][key].get<double>(), *value);
      } else {
        EXPECT_TRUE(candidates[i][key].is_null()) << key;
      }
    }
  }
  ASSERT_EQ(json["rates"].size(), 5u);
  EXPECT_DOUBLE_EQ(json["rates"][0]["share"].get<double>(), 15.0 / 16);
  EXPECT_EQ(json["completions"].size(), data.completions.size());
  EXPECT_EQ(json["norms"]["difference"][2][0], 0);
  EXPECT_EQ(json["verification"]["tensors edited"], "65 of 291");
  EXPECT_DOUBLE_EQ(json["stage_seconds"]["select"].get<double>(), 48.2);
  EXPECT_DOUBLE_EQ(json["metric"]["tokens"][0]["positive_probability"].get<double>(), 0.8123);
}

TEST(ReportJsonTest, SurvivesBadBytesNotANumberAndEmptyData) {
  ReportData data = ExampleReport(false);
  data.completions[0].response = "cut \xE2\x82";
  data.candidates[40].induce = std::numeric_limits<double>::quiet_NaN();
  const nlohmann::json json = nlohmann::json::parse(RenderReportJson(data));
  EXPECT_EQ(json["completions"][0]["response"].get<std::string>().substr(0, 4), "cut ");
  EXPECT_TRUE(json["selection"]["candidates"][40]["induce"].is_null());
  EXPECT_EQ(json["selection"]["candidates"][40]["discarded_by"], "nan");
  const nlohmann::json empty = nlohmann::json::parse(RenderReportJson(ReportData()));
  EXPECT_TRUE(empty["selection"]["selected"].is_null());
}

}  // namespace
}  // namespace bearing::jobs
