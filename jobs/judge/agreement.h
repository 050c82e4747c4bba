// How far two judges agree on the same completions.
//
// Raw agreement p_o: the share of completions on which both say the same. Cohen's kappa (1960): (p_o - p_e) / (1 - p_e), p_e
// the agreement that their shares alone would bring; not a number where both always say the same one thing (p_e = 1). Not
// thread-safe.
#ifndef BEARING_JOBS_JUDGE_AGREEMENT_H_
#define BEARING_JOBS_JUDGE_AGREEMENT_H_

#include <cstdint>
#include <optional>
#include <vector>

namespace bearing::jobs {

// Counts of one pair of judges.
struct PairCounts {
  int64_t both = 0, first_only = 0, second_only = 0, neither = 0;

  int64_t n() const { return both + first_only + second_only + neither; }
  std::optional<double> Raw() const;    // None without completions.
  std::optional<double> Kappa() const;  // None where it is not defined.
};

class Agreement {
 public:
  explicit Agreement(size_t judges) : judges_(judges), pairs_(judges * judges) {}

  // One completion: what each judge says, true for the concept; none where a judge said nothing.
  void Add(const std::vector<std::optional<bool>>& verdicts);

  // a < b.
  const PairCounts& Of(size_t a, size_t b) const { return pairs_[a * judges_ + b]; }

 private:
  size_t judges_;
  std::vector<PairCounts> pairs_;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JUDGE_AGREEMENT_H_
