// The optimizer on functions whose fronts are known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "worker/steer/search/mo_cma.h"
#include "worker/steer/search/pareto.h"

namespace bearing::steer {
namespace {

using ::testing::ElementsAre;

TEST(ParetoTest, FrontsOfAGrid) {
  const std::vector<Objectives> points = {{2, 2}, {0, 2}, {1, 1}, {2, 0}, {0, 2}, {3, 3}, {1, 2}};
  EXPECT_THAT(SortIntoFronts(points), ElementsAre(ElementsAre(1, 4, 2, 3), ElementsAre(6), ElementsAre(0), ElementsAre(5)));
  EXPECT_TRUE(Dominates({1, 1}, {1, 2}));
  EXPECT_FALSE(Dominates({1, 1}, {1, 1}));
  EXPECT_FALSE(Dominates({0, 2}, {1, 1}));
}

// By the definition, point by point.
TEST(ParetoTest, FrontsEqualTheDefinition) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<Objectives> points(1 + random() % 30);
    for (Objectives& point : points) point = {static_cast<double>(random() % 8), static_cast<double>(random() % 8)};
    std::vector<size_t> left(points.size());
    for (size_t i = 0; i < left.size(); ++i) left[i] = i;
    std::vector<std::vector<size_t>> want;
    while (!left.empty()) {
      std::vector<size_t> front, rest;
      for (const size_t i : left) {
        const bool beaten = std::any_of(left.begin(), left.end(), [&](size_t j) { return Dominates(points[j], points[i]); });
        (beaten ? rest : front).push_back(i);
      }
      want.push_back(front);
      left = rest;
    }
    std::vector<std::vector<size_t>> got = SortIntoFronts(points);
    for (auto& front : got) std::sort(front.begin(), front.end());
    ASSERT_EQ(got, want);
  }
}

TEST(ParetoTest, HypervolumeOfAStaircase) {
  const std::vector<Objectives> points = {{0, 2}, {1, 1}, {2, 0}, {2, 2}, {5, -1}};
  // Columns of width 1: heights 1, 2, and from 2 to 4: 3 below the reference (4, 3).
  EXPECT_DOUBLE_EQ(Hypervolume(points, {4, 3}), 1 + 2 + 2 * 3);
  EXPECT_DOUBLE_EQ(Hypervolume({}, {4, 3}), 0);
}

TEST(ParetoTest, SelectionLeavesOutWhatCostsLeast) {
  const std::vector<Objectives> points = {{0, 10}, {4.9, 5.1}, {5, 5}, {10, 0}, {6, 6}};
  EXPECT_THAT(SelectBest(points, 3, {11, 11}), ElementsAre(0, 2, 3));
  EXPECT_THAT(SelectBest(points, 5, {11, 11}), ElementsAre(0, 1, 2, 3, 4));
  // What lies beyond the reference adds nothing.
  EXPECT_THAT(SelectBest(points, 2, {8, 8}), ElementsAre(1, 2));
  EXPECT_TRUE(SelectBest({}, 0, {1, 1}).empty());
}

using Function = std::function<Objectives(const Point&)>;

// All points that were asked for in `generations`, and the hypervolume of the last population.
struct Optimized {
  std::vector<Point> asked;
  std::vector<Objectives> values;
  double hypervolume = 0;
};
Optimized Optimize(const MoCma::Options& options, int generations, const Function& function) {
  MoCma optimizer(options);
  Optimized run;
  for (int generation = 0; generation < generations; ++generation) {
    std::vector<std::optional<Objectives>> results;
    for (const Point& point : optimizer.Ask()) {
      for (const double x : point) {
        EXPECT_GE(x, 0);
        EXPECT_LE(x, 1);
      }
      run.asked.push_back(point);
      run.values.push_back(function(point));
      results.emplace_back(run.values.back());
    }
    optimizer.Tell(results);
  }
  std::vector<Objectives> last;
  for (const size_t parent : optimizer.Parents()) last.push_back(run.values.at(parent));
  run.hypervolume = Hypervolume(last, options.reference);
  return run;
}

// Two spheres with minima a and b: the front is |b - a|^2 (t^2, (1 - t)^2).
TEST(MoCmaTest, TwoSpheres) {
  const Function spheres = [](const Point& x) {
    Objectives f = {0, 0};
    for (const double v : x) {
      f[0] += (v - 0.3) * (v - 0.3);
      f[1] += (v - 0.7) * (v - 0.7);
    }
    return f;
  };
  MoCma::Options options;
  options.dimension = 8;
  options.population = 20;
  const double d = 8 * 0.4 * 0.4;
  options.reference = {d, d};
  // In units of d the front is y = (1 - sqrt(x))^2; the area above it up to 1 is 1 - 1/6.
  const double best = d * d * 5.0 / 6.0;
  for (const uint64_t seed : {1, 2, 3}) {
    options.seed = seed;
    const Optimized run = Optimize(options, 200, spheres);
    EXPECT_GT(run.hypervolume, 0.95 * best) << seed;  // 20 points of a smooth front cannot reach all of it.
    EXPECT_LT(run.hypervolume, best) << seed;
    EXPECT_LT(Optimize(options, 2, spheres).hypervolume, 0.7 * best) << "two generations are too few";
  }
}

// ZDT1 (Zitzler, Deb and Thiele 2000): front y = 1 - sqrt(x), on the surface of the cube.
TEST(MoCmaTest, Zdt1) {
  const Function zdt1 = [](const Point& x) -> Objectives {
    double g = 0;
    for (size_t i = 1; i < x.size(); ++i) g += x[i];
    g = 1 + 9 * g / static_cast<double>(x.size() - 1);
    return {x[0], g * (1 - std::sqrt(x[0] / g))};
  };
  MoCma::Options options;
  options.dimension = 10;
  options.population = 20;
  options.reference = {1.1, 1.1};
  const double best = 1.1 * 1.1 - (1.0 - 2.0 / 3.0);  // Less what lies below the front.
  for (const uint64_t seed : {1, 2, 3}) {
    options.seed = seed;
    const Optimized run = Optimize(options, 400, zdt1);
    EXPECT_GT(run.hypervolume, 0.95 * best) << seed;
    EXPECT_LT(run.hypervolume, best) << seed;
  }
}

// Ill-conditioned and rotated: the shape of the mutations must be learned.
TEST(MoCmaTest, LearnsTheShapeOfRotatedEllipsoids) {
  constexpr size_t kDimension = 4;
  const auto ellipsoid = [](const Point& x, double center) {
    // Coordinates in the rotated frame (a normalized Hadamard matrix), scaled from 1 to 100.
    const int signs[kDimension][kDimension] = {{1, 1, 1, 1}, {1, -1, 1, -1}, {1, 1, -1, -1}, {1, -1, -1, 1}};
    double f = 0;
    for (size_t i = 0; i < kDimension; ++i) {
      double y = 0;
      for (size_t j = 0; j < kDimension; ++j) y += 0.5 * signs[i][j] * (x[j] - center);
      f += std::pow(100.0, static_cast<double>(i) / (kDimension - 1)) * y * y;
    }
    return f;
  };
  const Function both = [&](const Point& x) -> Objectives { return {ellipsoid(x, 0.45), ellipsoid(x, 0.55)}; };
  MoCma::Options options;
  options.dimension = kDimension;
  options.population = 12;
  // The minima differ along the first axis of the frame alone, by 0.2: both objectives reach at most 0.04 on the front.
  options.reference = {0.04, 0.04};
  const double best = 0.04 * 0.04 * 5.0 / 6.0;
  for (const uint64_t seed : {1, 2, 3}) {
    options.seed = seed;
    EXPECT_GT(Optimize(options, 400, both).hypervolume, 0.95 * best) << seed;
  }
}

TEST(MoCmaTest, TheSeedDecidesAll) {
  const Function function = [](const Point& x) -> Objectives { return {x[0] + x[1], 1 - x[0] * x[1]}; };
  MoCma::Options options;
  options.dimension = 3;
  options.population = 6;
  options.start = {{0.5, 0.5, 0.5}, {1, 1, 1}};
  options.reference = {2, 1};
  options.seed = 11;
  const Optimized first = Optimize(options, 12, function);
  EXPECT_EQ(Optimize(options, 12, function).asked, first.asked);
  EXPECT_EQ(first.asked[0], options.start[0]);
  EXPECT_EQ(first.asked[1], options.start[1]);
  // The last bits of a result decide nothing, unless two results are equal but for them.
  const Function rounded = [&](const Point& x) -> Objectives { return {function(x)[0] * (1 + 1e-13), function(x)[1] - 1e-13}; };
  EXPECT_EQ(Optimize(options, 12, rounded).asked, first.asked);
  options.seed = 12;
  EXPECT_NE(Optimize(options, 12, function).asked, first.asked);
}

TEST(MoCmaTest, PointsWithoutAResultGoFirst) {
  MoCma::Options options;
  options.dimension = 2;
  options.population = 4;
  options.reference = {3, 3};
  MoCma optimizer(options);
  optimizer.Ask();
  optimizer.Tell(
      std::vector<std::optional<Objectives>>{Objectives{2, 2}, std::nullopt, Objectives{NAN, 1}, Objectives{1, 2.5}});
  optimizer.Ask();
  optimizer.Tell(std::vector<std::optional<Objectives>>{std::nullopt, Objectives{2.5, 2.6}, std::nullopt, Objectives{2, 1}});
  std::vector<size_t> parents = optimizer.Parents();
  std::sort(parents.begin(), parents.end());
  // Of the first generation 0 and 3, of the second 5 (dominated, but scored) and 7.
  EXPECT_THAT(parents, ElementsAre(0, 3, 5, 7));
}

}  // namespace
}  // namespace bearing::steer
