#include <cmath>
#include <tuple>

#include "jobs/report/report.h"

namespace bearing::jobs {

Rate MakeRate(int64_t showing, int64_t n) {
  Rate rate{.share = 0, .standard_error = 0, .n = static_cast<int>(n)};
  if (n == 0) return rate;
  rate.share = static_cast<double>(showing) / static_cast<double>(n);
  rate.standard_error = std::sqrt(rate.share * (1 - rate.share) / static_cast<double>(n));
  return rate;
}

Rate ConceptRate(const std::vector<Completion>& completions, const std::string& side, const std::string& intervention) {
  int showing = 0, n = 0;
  for (const Completion& completion : completions) {
    if (completion.side != side || completion.intervention != intervention) continue;
    ++n;
    showing += completion.shows_concept ? 1 : 0;
  }
  return MakeRate(showing, n);
}

std::vector<CategoryRates> RatesByCategory(const std::vector<Completion>& completions) {
  struct Count {
    int showing = 0, n = 0;
  };
  // Positive before negative.
  std::map<std::tuple<bool, std::string, std::string>, std::map<std::string, Count>> counts;
  for (const Completion& completion : completions) {
    Count& count = counts[{completion.side != "positive", completion.side, completion.category}][completion.intervention];
    ++count.n;
    count.showing += completion.shows_concept ? 1 : 0;
  }
  std::vector<CategoryRates> found;
  for (const auto& [key, by_intervention] : counts) {
    CategoryRates row{.side = std::get<1>(key), .category = std::get<2>(key), .rates = {}};
    for (const auto& [intervention, count] : by_intervention) row.rates[intervention] = MakeRate(count.showing, count.n);
    found.push_back(std::move(row));
  }
  return found;
}

}  // namespace bearing::jobs
