#include "worker/steer/search/pareto.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace bearing::steer {
namespace {

// What each point of a front (sorted by the first objective, so that the second falls) adds to the hypervolume.
std::vector<double> Contributions(absl::Span<const Objectives> points, absl::Span<const size_t> front,
                                  const Objectives& reference) {
  std::vector<double> added(front.size());
  for (size_t i = 0; i < front.size(); ++i) {
    const double right = i + 1 < front.size() ? std::min(points[front[i + 1]][0], reference[0]) : reference[0];
    const double above = i > 0 ? std::min(points[front[i - 1]][1], reference[1]) : reference[1];
    added[i] = std::max(0.0, right - points[front[i]][0]) * std::max(0.0, above - points[front[i]][1]);
  }
  return added;
}

}  // namespace

bool Dominates(const Objectives& a, const Objectives& b) {
  return a[0] <= b[0] && a[1] <= b[1] && (a[0] < b[0] || a[1] < b[1]);
}

std::vector<std::vector<size_t>> SortIntoFronts(absl::Span<const Objectives> points) {
  std::vector<size_t> order(points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return points[a] != points[b] ? points[a] < points[b] : a < b; });
  // In this order nothing is dominated by what follows it, so that a point belongs to the first front whose last member (the
  // least second objective so far) does not dominate it.
  std::vector<std::vector<size_t>> fronts;
  for (const size_t index : order) {
    const auto takes = [&](const std::vector<size_t>& front) { return !Dominates(points[front.back()], points[index]); };
    const auto front = std::find_if(fronts.begin(), fronts.end(), takes);
    if (front == fronts.end()) {
      fronts.push_back({index});
    } else {
      front->push_back(index);
    }
  }
  return fronts;
}

double Hypervolume(absl::Span<const Objectives> points, const Objectives& reference) {
  if (points.empty()) return 0;
  double area = 0;
  double above = reference[1];
  const std::vector<std::vector<size_t>> fronts = SortIntoFronts(points);
  for (const size_t index : fronts.front()) {
    const double height = above - points[index][1];
    const double width = reference[0] - points[index][0];
    if (height <= 0 || width <= 0) continue;
    area += height * width;
    above = points[index][1];
  }
  return area;
}

std::vector<size_t> SelectBest(absl::Span<const Objectives> points, size_t count, const Objectives& reference) {
  std::vector<size_t> chosen;
  for (std::vector<size_t>& front : SortIntoFronts(points)) {
    while (chosen.size() + front.size() > count) {
      const std::vector<double> added = Contributions(points, front, reference);
      size_t least = 0;
      for (size_t i = 1; i < front.size(); ++i) {
        if (added[i] < added[least] || (added[i] == added[least] && front[i] > front[least])) least = i;
      }
      front.erase(front.begin() + static_cast<std::ptrdiff_t>(least));
    }
    chosen.insert(chosen.end(), front.begin(), front.end());
    if (chosen.size() == count) break;
  }
  return chosen;
}

}  // namespace bearing::steer
