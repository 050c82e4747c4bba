#include "jobs/cost_statistics.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace bearing::jobs {
namespace {

using nlohmann::json;

json OrNull(const std::optional<double>& value) { return value.has_value() ? json(*value) : json(nullptr); }

}  // namespace

PairedRatio::PairedRatio(size_t conditions)
    : conditions_(conditions), sums_(conditions), sized_(conditions), products_(conditions * conditions) {}

void PairedRatio::Add(double size, const std::vector<double>& sums) {
  ++items_;
  size_ += size;
  squared_size_ += size * size;
  for (size_t i = 0; i < conditions_; ++i) {
    sums_[i] += sums[i];
    sized_[i] += sums[i] * size;
    for (size_t j = 0; j < conditions_; ++j) products_[i * conditions_ + j] += sums[i] * sums[j];
  }
}

double PairedRatio::Value(size_t condition) const { return sums_[condition] / size_; }

double PairedRatio::Difference(size_t condition) const { return (sums_[condition] - sums_[0]) / size_; }

double PairedRatio::Covariance(size_t i, size_t j) const {
  if (items_ < 2) return 0;
  const double residuals =
      products_[i * conditions_ + j] - Value(i) * sized_[j] - Value(j) * sized_[i] + Value(i) * Value(j) * squared_size_;
  const auto n = static_cast<double>(items_);
  return n / (n - 1) * residuals / (size_ * size_);
}

std::optional<double> PairedRatio::ErrorOf(double weight_0, size_t condition, double weight) const {
  if (items_ < 2) return std::nullopt;
  const double variance = weight * weight * Covariance(condition, condition) + weight_0 * weight_0 * Covariance(0, 0) +
                          2 * weight * weight_0 * Covariance(condition, 0);
  return std::sqrt(std::max(0.0, variance));  // Rounding may leave a variance of 0 below it.
}

std::optional<double> PairedRatio::StandardError(size_t condition) const { return ErrorOf(0, condition, 1); }

std::optional<double> PairedRatio::DifferenceError(size_t condition) const { return ErrorOf(-1, condition, 1); }

std::optional<double> PairedRatio::ExpDifferenceError(size_t condition) const {
  return ErrorOf(-std::exp(Value(0)), condition, std::exp(Value(condition)));
}

json RatioMetric(const std::string& metric, const std::vector<std::string>& interventions, const PairedRatio& ratio) {
  json values = json::array();
  for (size_t i = 0; i < interventions.size(); ++i) {
    json value = {
        {"intervention", interventions[i]}, {"value", ratio.Value(i)}, {"standard_error", OrNull(ratio.StandardError(i))}};
    if (i > 0) {
      value["difference"] = ratio.Difference(i);
      value["difference_standard_error"] = OrNull(ratio.DifferenceError(i));
    }
    values.push_back(std::move(value));
  }
  return {{"metric", metric}, {"values", std::move(values)}};
}

json ExpMetric(const std::string& metric, const std::vector<std::string>& interventions, const PairedRatio& ratio) {
  json values = json::array();
  for (size_t i = 0; i < interventions.size(); ++i) {
    std::optional<double> error = ratio.StandardError(i);
    if (error.has_value()) *error *= std::exp(ratio.Value(i));
    json value = {{"intervention", interventions[i]}, {"value", std::exp(ratio.Value(i))}, {"standard_error", OrNull(error)}};
    if (i > 0) {
      value["difference"] = std::exp(ratio.Value(i)) - std::exp(ratio.Value(0));
      value["difference_standard_error"] = OrNull(ratio.ExpDifferenceError(i));
    }
    values.push_back(std::move(value));
  }
  return {{"metric", metric}, {"values", std::move(values)}};
}

json DivergenceMetric(const std::string& metric, const std::vector<std::string>& interventions, const PairedRatio& ratio) {
  json values = json::array();
  for (size_t i = 1; i < interventions.size(); ++i) {
    values.push_back(
        {{"intervention", interventions[i]}, {"value", ratio.Value(i)}, {"standard_error", OrNull(ratio.StandardError(i))}});
  }
  return {{"metric", metric}, {"values", std::move(values)}};
}

}  // namespace bearing::jobs
