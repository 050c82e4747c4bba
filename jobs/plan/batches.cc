#include "jobs/plan/batches.h"

#include <algorithm>

namespace bearing::jobs {

int64_t PromptLengths::Prefix(int64_t keep) const {
  if (tokens.size() < 2) return 0;
  const int64_t shortest = *std::min_element(tokens.begin(), tokens.end());
  return std::max<int64_t>(0, std::min(shared, shortest - keep));
}

void Batch::Add(const Batch& other) {
  tokens += other.tokens;
  reads += other.reads;
  pairs += other.pairs;
  read_pairs += other.read_pairs;
}

std::vector<Batch> CutBatches(const PromptLengths& prompts, int64_t keep, int64_t budget, int64_t max_rows) {
  const int64_t prefix = prompts.Prefix(keep);
  std::vector<Batch> batches;
  for (const int64_t tokens : prompts.tokens) {
    const int64_t own = tokens - prefix;
    if (batches.empty() || batches.back().tokens + own > budget || batches.back().reads == max_rows) {
      batches.emplace_back();
      batches.back().tokens = prefix;
      batches.back().pairs = static_cast<double>(prefix) * static_cast<double>(prefix);
    }
    Batch& batch = batches.back();
    batch.tokens += own;
    batch.reads += 1;
    batch.pairs += static_cast<double>(own) * static_cast<double>(tokens);
    batch.read_pairs += static_cast<double>(tokens);
  }
  return batches;
}

std::vector<Batch> PackGroups(const std::vector<Batch>& ranges, int64_t times, int64_t budget) {
  std::vector<Batch> passes;
  for (int64_t i = 0; i < times; ++i) {
    for (const Batch& range : ranges) {
      if (passes.empty() || passes.back().tokens + range.tokens > budget) passes.emplace_back();
      passes.back().Add(range);
    }
  }
  return passes;
}

}  // namespace bearing::jobs
