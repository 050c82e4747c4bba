// The batches that the worker will make of a set of prompts, by their sizes alone. Mirrors worker/steer/row_batches.h and
// candidate_scores.cc; tests/worker/plan_batches_test.cc holds both against each other.
//
// Letters: T tokens of a batch, N rows that are read, p shared prefix.
#ifndef BEARING_JOBS_PLAN_BATCHES_H_
#define BEARING_JOBS_PLAN_BATCHES_H_

#include <cstdint>
#include <limits>
#include <vector>

namespace bearing::jobs {

// Prompts of one set as counts of tokens.
struct PromptLengths {
  std::vector<int64_t> tokens;  // Of each prompt, template included.
  int64_t shared = 0;           // Tokens in front that all of them share.

  int64_t count() const { return static_cast<int64_t>(tokens.size()); }
  // p, when `keep` tokens of each prompt stay out of it; 0 for fewer than two prompts.
  int64_t Prefix(int64_t keep) const;
};

// One forward pass.
struct Batch {
  int64_t tokens = 0;     // T
  int64_t reads = 0;      // N
  double pairs = 0;       // Sum over segments of queries x keys: the kernel computes masked and windowed ones too.
  double read_pairs = 0;  // The same for the rows that are read alone (the last block).

  void Add(const Batch& other);
};

// The prompts in passes of at most `budget` tokens and `max_rows` rows, the prefix once in each.
std::vector<Batch> CutBatches(const PromptLengths& prompts, int64_t keep, int64_t budget,
                              int64_t max_rows = std::numeric_limits<int64_t>::max());

// The passes of `times` groups of all prompts (one a candidate), filled up to the budget.
std::vector<Batch> PackGroups(const std::vector<Batch>& ranges, int64_t times, int64_t budget);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_BATCHES_H_
