#include "worker/steer/search/mo_cma.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <utility>

namespace bearing::steer {
namespace {

// Rates and factors of the (1+1)-CMA-ES, table 1 of the first paper.
constexpr double kThreshold = 0.44;  // A smoothed success rate above it: the steps are too short to learn a shape from.
constexpr double kPenalty = 1e-6;    // Of the squared distance to the cube.
const double kTargetSuccess = 1.0 / (5.0 + std::sqrt(0.5));

// A with A A^T = C, lower triangular. C is positive definite but for rounding.
std::vector<std::vector<double>> Cholesky(const std::vector<std::vector<double>>& c) {
  const size_t n = c.size();
  std::vector<std::vector<double>> a(n, std::vector<double>(n, 0.0));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = c[i][j];
      for (size_t k = 0; k < j; ++k) sum -= a[i][k] * a[j][k];
      a[i][j] = i == j ? std::sqrt(std::max(sum, 1e-24)) : sum / a[j][j];
    }
  }
  return a;
}

Point Clamped(std::vector<double> x) {
  for (double& value : x) value = std::clamp(value, 0.0, 1.0);
  return x;
}

}  // namespace

MoCma::MoCma(const Options& options) : options_(options), random_(options.seed) {}

// Not those of the standard library, whose numbers differ from one to the other.
double MoCma::Uniform() { return (static_cast<double>(random_() >> 11) + 0.5) * 0x1.0p-53; }

double MoCma::Normal() {
  if (spare_normal_.has_value()) return *std::exchange(spare_normal_, std::nullopt);
  const double length = std::sqrt(-2.0 * std::log(Uniform()));
  const double angle = 2.0 * std::numbers::pi * Uniform();
  spare_normal_ = length * std::sin(angle);
  return length * std::cos(angle);
}

MoCma::Individual MoCma::Fresh(std::vector<double> x) {
  const size_t n = options_.dimension;
  Individual fresh;
  fresh.number = asked_++;
  fresh.x = std::move(x);
  fresh.sigma = options_.step;
  fresh.success = kTargetSuccess;
  fresh.path.assign(n, 0.0);
  fresh.shape.assign(n, std::vector<double>(n, 0.0));
  for (size_t i = 0; i < n; ++i) fresh.shape[i][i] = 1.0;
  return fresh;
}

// Those that are given, then a Latin hypercube: each axis is cut into as many parts as there are points, one point a part.
std::vector<Point> MoCma::FirstPoints() {
  std::vector<Point> points = options_.start;
  points.resize(std::min(points.size(), options_.population));
  const size_t drawn = options_.population - points.size();
  std::vector<Point> rest(drawn, Point(options_.dimension));
  for (size_t axis = 0; axis < options_.dimension; ++axis) {
    std::vector<size_t> parts(drawn);
    std::iota(parts.begin(), parts.end(), size_t{0});
    for (size_t i = drawn; i > 1; --i) std::swap(parts[i - 1], parts[random_() % i]);
    for (size_t i = 0; i < drawn; ++i) {
      rest[i][axis] = (static_cast<double>(parts[i]) + Uniform()) / static_cast<double>(drawn);
    }
  }
  points.insert(points.end(), rest.begin(), rest.end());
  return points;
}

MoCma::Individual MoCma::Mutate(size_t parent) {
  const size_t n = options_.dimension;
  Individual child = parents_[parent];
  child.parent = parent;
  child.number = asked_++;
  const std::vector<std::vector<double>> factor = Cholesky(child.shape);
  std::vector<double> z(n);
  for (double& value : z) value = Normal();
  child.step.assign(n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) child.step[i] += factor[i][j] * z[j];
    child.x[i] += child.sigma * child.step[i];
  }
  return child;
}

const std::vector<Point>& MoCma::Ask() {
  offspring_.clear();
  if (parents_.empty()) {
    for (const Point& point : FirstPoints()) offspring_.push_back(Fresh(point));
  } else {
    for (size_t parent = 0; parent < parents_.size(); ++parent) offspring_.push_back(Mutate(parent));
  }
  points_.clear();
  for (const Individual& child : offspring_) points_.push_back(Clamped(child.x));
  return points_;
}

Objectives MoCma::ValueOf(const Individual& individual, const std::optional<Objectives>& result) const {
  constexpr double kWorst = std::numeric_limits<double>::max();
  if (!result.has_value() || std::isnan((*result)[0]) || std::isnan((*result)[1])) return {kWorst, kWorst};
  double distance = 0;
  for (const double x : individual.x) distance += std::pow(x - std::clamp(x, 0.0, 1.0), 2);
  return {(*result)[0] + kPenalty * distance, (*result)[1] + kPenalty * distance};
}

void MoCma::UpdateStep(Individual& individual, bool success) const {
  const double rate = kTargetSuccess / (2.0 + kTargetSuccess);
  const double damping = 1.0 + static_cast<double>(options_.dimension) / 2.0;
  individual.success = (1.0 - rate) * individual.success + rate * (success ? 1.0 : 0.0);
  individual.sigma *= std::exp((individual.success - kTargetSuccess) / (1.0 - kTargetSuccess) / damping);
}

void MoCma::UpdateShape(Individual& individual) const {
  const auto n = static_cast<double>(options_.dimension);
  const double path_rate = 2.0 / (n + 2.0);
  const double shape_rate = 2.0 / (n * n + 6.0);
  const bool learns = individual.success < kThreshold;
  const double pull = learns ? std::sqrt(path_rate * (2.0 - path_rate)) : 0.0;
  for (size_t i = 0; i < individual.path.size(); ++i) {
    individual.path[i] = (1.0 - path_rate) * individual.path[i] + pull * individual.step[i];
  }
  const double keep = learns ? 1.0 - shape_rate : 1.0 - shape_rate + shape_rate * path_rate * (2.0 - path_rate);
  for (size_t i = 0; i < individual.path.size(); ++i) {
    for (size_t j = 0; j < individual.path.size(); ++j) {
      individual.shape[i][j] = keep * individual.shape[i][j] + shape_rate * individual.path[i] * individual.path[j];
    }
  }
}

void MoCma::Tell(absl::Span<const std::optional<Objectives>> results) {
  for (size_t i = 0; i < offspring_.size(); ++i) offspring_[i].value = ValueOf(offspring_[i], results[i]);
  if (parents_.empty()) {
    parents_ = std::move(offspring_);
    return;
  }
  // Offspring first: on ties the later index goes, so that the population moves on flat ground.
  std::vector<Objectives> values;
  for (const Individual& child : offspring_) values.push_back(child.value);
  for (const Individual& parent : parents_) values.push_back(parent.value);
  const std::vector<size_t> chosen = SelectBest(values, parents_.size(), options_.reference);
  std::vector<bool> taken(values.size(), false);
  for (const size_t index : chosen) taken[index] = true;
  for (size_t i = 0; i < offspring_.size(); ++i) {
    UpdateStep(parents_[*offspring_[i].parent], taken[i]);
    UpdateStep(offspring_[i], taken[i]);
    UpdateShape(offspring_[i]);
  }
  std::vector<Individual> next;
  for (const size_t index : chosen) {
    next.push_back(std::move(index < offspring_.size() ? offspring_[index] : parents_[index - offspring_.size()]));
  }
  parents_ = std::move(next);
}

std::vector<size_t> MoCma::Parents() const {
  std::vector<size_t> numbers;
  for (const Individual& parent : parents_) numbers.push_back(parent.number);
  return numbers;
}

}  // namespace bearing::steer
