#include <cmath>

#include "jobs/report/report.h"

namespace bearing::jobs {

Rate ConceptRate(const std::vector<Completion>& completions, const std::string& side, const std::string& intervention) {
  Rate rate;
  int showing = 0;
  for (const Completion& completion : completions) {
    if (completion.side != side || completion.intervention != intervention) continue;
    ++rate.n;
    if (completion.shows_concept) ++showing;
  }
  if (rate.n == 0) return rate;
  rate.share = static_cast<double>(showing) / rate.n;
  rate.standard_error = std::sqrt(rate.share * (1 - rate.share) / rate.n);
  return rate;
}

}  // namespace bearing::jobs
