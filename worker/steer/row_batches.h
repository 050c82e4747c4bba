// Prompts as rows of token ids, and their cut into packed batches.
#ifndef BEARING_WORKER_STEER_ROW_BATCHES_H_
#define BEARING_WORKER_STEER_ROW_BATCHES_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "worker/model/decoder.h"
#include "worker/model/packed_batch.h"

namespace bearing::steer {

using Rows = std::vector<std::vector<int32_t>>;

// Half-open range of row indices.
struct RowRange {
  size_t begin = 0;
  size_t end = 0;
  size_t size() const { return end - begin; }
};

// A prefix that all rows share is computed once a group; `keep` tokens of each row stay out of it, because their residuals are
// read. Rows are given by index, so nothing is copied but token ids.
class RowBatcher {
 public:
  // `rows` must outlive the batcher and not be empty. Rows on both sides of longrope's original context share no prefix: its
  // keys would be rotated in two ways.
  RowBatcher(const sharding::ModelConfig& config, const Rows& rows, int64_t keep);

  int64_t prefix() const { return prefix_; }

  // Tokens that a group with these rows computes.
  int64_t TokensOf(RowRange range) const;

  // Cuts all rows, or those of `part`, into ranges of at most `budget` tokens and `max_rows` rows each (at least one row).
  std::vector<RowRange> Cut(int64_t budget, size_t max_rows = std::numeric_limits<size_t>::max()) const;
  std::vector<RowRange> Cut(RowRange part, int64_t budget, size_t max_rows = std::numeric_limits<size_t>::max()) const;

  // Appends a group with these rows to `batch`; `segments` receives the segment of each row, `read` its last token.
  void AppendGroup(RowRange range, const model::Intervention& intervention, model::PackedBatch& batch,
                   std::vector<int>& segments, std::vector<int64_t>& read) const;

 private:
  const Rows& rows_;
  int64_t prefix_;
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_ROW_BATCHES_H_
