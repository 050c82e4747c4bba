// Ratios and their errors against figures worked out with numpy from the formulas' definition (residuals, not sums).
#include "jobs/cost_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace bearing::jobs {
namespace {

// Covariance of the two ratios from each item's residuals.
double Plain(const std::vector<double>& n, const std::vector<double>& a, const std::vector<double>& b) {
  double sum_n = 0, sum_a = 0, sum_b = 0, products = 0;
  for (size_t k = 0; k < n.size(); ++k) {
    sum_n += n[k];
    sum_a += a[k];
    sum_b += b[k];
  }
  for (size_t k = 0; k < n.size(); ++k) products += (a[k] - sum_a / sum_n * n[k]) * (b[k] - sum_b / sum_n * n[k]);
  const auto items = static_cast<double>(n.size());
  return items / (items - 1) * products / (sum_n * sum_n);
}

TEST(CostStatisticsTest, RatiosAndErrorsEqualThoseOfTheResiduals) {
  const std::vector<double> n = {3, 10, 1, 7}, a = {2.5, 11, 0.25, 6.5}, b = {2.75, 11.5, 0.75, 6.25};
  PairedRatio ratio(2);
  for (size_t k = 0; k < n.size(); ++k) ratio.Add(n[k], {a[k], b[k]});
  EXPECT_EQ(ratio.items(), 4);
  EXPECT_DOUBLE_EQ(ratio.size(), 21);
  EXPECT_DOUBLE_EQ(ratio.Value(0), 20.25 / 21);
  EXPECT_DOUBLE_EQ(ratio.Difference(1), 1.0 / 21);
  EXPECT_NEAR(*ratio.StandardError(0), std::sqrt(Plain(n, a, a)), 1e-12);
  EXPECT_NEAR(*ratio.StandardError(1), std::sqrt(Plain(n, b, b)), 1e-12);
  std::vector<double> difference;
  for (size_t k = 0; k < n.size(); ++k) difference.push_back(b[k] - a[k]);
  EXPECT_NEAR(*ratio.DifferenceError(1), std::sqrt(Plain(n, difference, difference)), 1e-12);
  const double p = std::exp(ratio.Value(0)), q = std::exp(ratio.Value(1));
  const double variance = q * q * Plain(n, b, b) + p * p * Plain(n, a, a) - 2 * p * q * Plain(n, a, b);
  EXPECT_NEAR(*ratio.ExpDifferenceError(1), std::sqrt(variance), 1e-12);
}

TEST(CostStatisticsTest, AShareHasTheErrorOfASample) {
  PairedRatio ratio(1);
  for (int k = 0; k < 10; ++k) ratio.Add(1, {k < 7 ? 1.0 : 0.0});
  EXPECT_DOUBLE_EQ(ratio.Value(0), 0.7);
  EXPECT_NEAR(*ratio.StandardError(0), std::sqrt(0.7 * 0.3 / 9), 1e-12);
}

TEST(CostStatisticsTest, OneItemHasNoErrorAndEqualOnesHaveZero) {
  PairedRatio one(2);
  one.Add(5, {1, 2});
  EXPECT_FALSE(one.StandardError(0).has_value());
  EXPECT_FALSE(one.DifferenceError(1).has_value());
  EXPECT_TRUE(RatioMetric("x", {"baseline", "ablation"}, one)["values"][0]["standard_error"].is_null());
  PairedRatio equal(2);
  for (int k = 0; k < 3; ++k) equal.Add(3, {0.1, 0.1});
  EXPECT_NEAR(*equal.StandardError(0), 0, 1e-9);
  EXPECT_EQ(*equal.DifferenceError(1), 0);
}

TEST(CostStatisticsTest, MetricsNameInterventionsAndDifferences) {
  PairedRatio ratio(2);
  ratio.Add(2, {1, 3});
  ratio.Add(2, {2, 4});
  const nlohmann::json metric = RatioMetric("cross_entropy", {"baseline", "ablation"}, ratio);
  EXPECT_EQ(metric["metric"], "cross_entropy");
  EXPECT_EQ(metric["values"][0]["value"], 0.75);
  EXPECT_FALSE(metric["values"][0].contains("difference"));
  EXPECT_EQ(metric["values"][1]["difference"], 1.0);
  const nlohmann::json perplexity = ExpMetric("perplexity", {"baseline", "ablation"}, ratio);
  EXPECT_DOUBLE_EQ(perplexity["values"][1]["value"].get<double>(), std::exp(1.75));
  EXPECT_DOUBLE_EQ(perplexity["values"][1]["difference"].get<double>(), std::exp(1.75) - std::exp(0.75));
  const nlohmann::json kl = DivergenceMetric("kl", {"baseline", "ablation"}, ratio);
  ASSERT_EQ(kl["values"].size(), 1u);
  EXPECT_EQ(kl["values"][0]["intervention"], "ablation");
}

}  // namespace
}  // namespace bearing::jobs
