// Means of paired measurements with their standard errors.
//
// N items; item k has size n_k (its tokens; 1 for questions) and under condition i the sum S_ki. The value is the ratio
// R_i = sum_k S_ki / sum_k n_k. Items are the units that were sampled, not tokens, so errors come from the items' residuals
// e_ki = S_ki - R_i n_k (the usual estimate for a ratio):
//   cov(R_i, R_j) = N / (N - 1) * sum_k e_ki e_kj / (sum_k n_k)^2.
// With n_k = 1 the error is the sample's standard deviation / sqrt(N), as lm-evaluation-harness reports it. Conditions saw the
// same items, so the error of a difference is that of the paired differences: var(R_i) + var(R_0) - 2 cov(R_i, R_0).
//
// Only sums are kept, whatever the number of items. Not thread-safe.
#ifndef BEARING_JOBS_COST_STATISTICS_H_
#define BEARING_JOBS_COST_STATISTICS_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace bearing::jobs {

class PairedRatio {
 public:
  explicit PairedRatio(size_t conditions);

  // sums [conditions]
  void Add(double size, const std::vector<double>& sums);

  int64_t items() const { return items_; }
  double size() const { return size_; }
  double Value(size_t condition) const;
  // Unset for fewer than 2 items.
  std::optional<double> StandardError(size_t condition) const;
  double Difference(size_t condition) const;  // From condition 0.
  std::optional<double> DifferenceError(size_t condition) const;
  // The same of exp(value), by the delta method.
  std::optional<double> ExpDifferenceError(size_t condition) const;

 private:
  // 0 for fewer than 2 items.
  double Covariance(size_t i, size_t j) const;
  // sqrt of the variance of sum_i weights_i R_i.
  std::optional<double> ErrorOf(double weight_0, size_t condition, double weight) const;

  size_t conditions_;
  int64_t items_ = 0;
  double size_ = 0, squared_size_ = 0;
  std::vector<double> sums_;      // [conditions]
  std::vector<double> sized_;     // sum of S n, [conditions]
  std::vector<double> products_;  // sum of S_i S_j, [conditions, conditions]
};

// What a table shows of a measure: for each condition value and standard_error, and but for the first difference and
// difference_standard_error (null: not known). {"metric": ..., "values": [{"intervention", ...}]}
nlohmann::json RatioMetric(const std::string& metric, const std::vector<std::string>& interventions, const PairedRatio& ratio);

// exp of the same: perplexity from cross-entropy.
nlohmann::json ExpMetric(const std::string& metric, const std::vector<std::string>& interventions, const PairedRatio& ratio);

// A measure that compares with the first condition itself: no value there and no differences.
nlohmann::json DivergenceMetric(const std::string& metric, const std::vector<std::string>& interventions,
                                const PairedRatio& ratio);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_COST_STATISTICS_H_
