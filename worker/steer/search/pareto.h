// Pareto fronts of two objectives, both to be made small. Pure functions, thread-safe. NaN is not an objective: callers leave
// such points out.
#ifndef BEARING_WORKER_STEER_SEARCH_PARETO_H_
#define BEARING_WORKER_STEER_SEARCH_PARETO_H_

#include <array>
#include <cstddef>
#include <vector>

#include "absl/types/span.h"

namespace bearing::steer {

using Objectives = std::array<double, 2>;

// a is nowhere worse than b, and somewhere better.
bool Dominates(const Objectives& a, const Objectives& b);

// Fronts of the points by index: the first holds those that nothing dominates, the next those that only the first dominates,
// and so on. Each by the first objective, then the second, then the index.
std::vector<std::vector<size_t>> SortIntoFronts(absl::Span<const Objectives> points);

// Area that the points dominate below `reference`.
double Hypervolume(absl::Span<const Objectives> points, const Objectives& reference);

// The `count` best points, best first: front by front; inside the front that does not fit whole, those are left out one after
// the other whose loss costs the least hypervolume (Igel, Hansen and Roth 2007, section 3.2.1), the later index on ties.
std::vector<size_t> SelectBest(absl::Span<const Objectives> points, size_t count, const Objectives& reference);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_SEARCH_PARETO_H_
