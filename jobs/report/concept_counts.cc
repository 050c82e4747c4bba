#include "jobs/report/concept_counts.h"

#include <cmath>

namespace bearing::jobs {

Rate MakeRate(int64_t showing, int64_t n) {
  Rate rate{.share = 0, .standard_error = 0, .n = static_cast<int>(n)};
  if (n == 0) return rate;
  rate.share = static_cast<double>(showing) / static_cast<double>(n);
  rate.standard_error = std::sqrt(rate.share * (1 - rate.share) / static_cast<double>(n));
  return rate;
}

void ConceptCounts::Add(const std::string& side, const std::string& intervention, const std::string& category,
                        bool shows_concept) {
  Count& count = counts_[{side != "positive", side, category}][intervention];
  ++count.n;
  count.showing += shows_concept ? 1 : 0;
}

Rate ConceptCounts::Of(const std::string& side, const std::string& intervention) const {
  int64_t showing = 0, n = 0;
  for (const auto& [key, by_intervention] : counts_) {
    const auto found = by_intervention.find(intervention);
    if (std::get<1>(key) != side || found == by_intervention.end()) continue;
    showing += found->second.showing;
    n += found->second.n;
  }
  return MakeRate(showing, n);
}

std::vector<CategoryRates> ConceptCounts::ByCategory() const {
  std::vector<CategoryRates> found;
  for (const auto& [key, by_intervention] : counts_) {
    CategoryRates row{.side = std::get<1>(key), .category = std::get<2>(key), .rates = {}};
    for (const auto& [intervention, count] : by_intervention) row.rates[intervention] = MakeRate(count.showing, count.n);
    found.push_back(std::move(row));
  }
  return found;
}

}  // namespace bearing::jobs
