// Multi-objective CMA-ES in the unit cube, two objectives to be made small: a population of (1+1)-CMA-ES, one a parent, and
// selection by non-dominated sorting and hypervolume (Igel, Hansen and Roth 2007, "Covariance matrix adaptation for
// multi-objective optimization", Evolutionary Computation 15(1)); a step counts as a success when the population takes the
// offspring in (Voss, Hansen and Igel 2010, "Improved step size adaptation for the MO-CMA-ES", GECCO).
//
// Ask and tell: a whole generation is asked for at once, so that it can be scored in few forward passes. Results
// only bring the individuals into an order, so their last bits decide nothing unless two are equal but for them. The same options
// and results give the same points, on every machine with the same mathematical library. Not thread-safe.
#ifndef BEARING_WORKER_STEER_SEARCH_MO_CMA_H_
#define BEARING_WORKER_STEER_SEARCH_MO_CMA_H_

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "worker/steer/search/pareto.h"

namespace bearing::steer {

using Point = std::vector<double>;  // In the unit cube.

class MoCma {
 public:
  struct Options {
    size_t dimension = 1;
    size_t population = 16;  // Parents, and points that are asked for at once.
    uint64_t seed = 1;
    double step = 0.15;             // Of the first offspring: standard deviation in every direction.
    Objectives reference = {1, 1};  // What is beyond it adds no hypervolume.
    std::vector<Point> start;       // Of the first generation; the rest of it is drawn.
  };
  explicit MoCma(const Options& options);

  // The next `population` points. Points outside of the cube are moved to its surface.
  const std::vector<Point>& Ask();

  // Results of the points of the last Ask, in their order; none = worse than all that have one.
  void Tell(absl::Span<const std::optional<Objectives>> results);

  // The points that the population holds now, by their number: the i-th that was ever asked for is number i.
  std::vector<size_t> Parents() const;

 private:
  // Of an offspring after its mutation, of a parent before the next one.
  struct Individual {
    size_t number = 0;
    std::vector<double> x;  // As drawn: perhaps outside of the cube.
    double sigma = 0;
    double success = 0;                      // Smoothed rate.
    std::vector<double> path;                // Evolution path.
    std::vector<std::vector<double>> shape;  // Covariance matrix.
    std::vector<double> step;                // Of its mutation, divided by the parent's sigma.
    std::optional<size_t> parent;            // Index into parents_.
    Objectives value = {0, 0};               // Penalty included.
  };

  double Uniform();
  double Normal();
  Individual Fresh(std::vector<double> x);
  Individual Mutate(size_t parent);
  std::vector<Point> FirstPoints();
  void UpdateStep(Individual& individual, bool success) const;
  void UpdateShape(Individual& individual) const;
  Objectives ValueOf(const Individual& individual, const std::optional<Objectives>& result) const;

  Options options_;
  std::mt19937_64 random_;
  std::optional<double> spare_normal_;
  size_t asked_ = 0;
  std::vector<Individual> parents_, offspring_;
  std::vector<Point> points_;  // Of the offspring.
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_SEARCH_MO_CMA_H_
