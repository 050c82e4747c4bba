#include "jobs/judge/agreement.h"

namespace bearing::jobs {

std::optional<double> PairCounts::Raw() const {
  if (n() == 0) return std::nullopt;
  return static_cast<double>(both + neither) / static_cast<double>(n());
}

std::optional<double> PairCounts::Kappa() const {
  if (n() == 0) return std::nullopt;
  const auto all = static_cast<double>(n());
  const double first = static_cast<double>(both + first_only) / all, second = static_cast<double>(both + second_only) / all;
  const double expected = first * second + (1 - first) * (1 - second);
  if (expected >= 1) return std::nullopt;
  return (*Raw() - expected) / (1 - expected);
}

void Agreement::Add(const std::vector<std::optional<bool>>& verdicts) {
  for (size_t a = 0; a < judges_; ++a) {
    for (size_t b = a + 1; b < judges_; ++b) {
      if (!verdicts[a].has_value() || !verdicts[b].has_value()) continue;
      PairCounts& pair = pairs_[a * judges_ + b];
      int64_t& count =
          *verdicts[a] ? (*verdicts[b] ? pair.both : pair.first_only) : (*verdicts[b] ? pair.second_only : pair.neither);
      ++count;
    }
  }
}

}  // namespace bearing::jobs
