// Which neighbouring rows share their first tokens in a batch: the answers of one question, or all texts behind one template.
// Unlike RowBatcher, which cuts one prefix off all rows, each family of rows has a prefix of its own. Pure.
#ifndef BEARING_WORKER_STEER_SHARED_ROWS_H_
#define BEARING_WORKER_STEER_SHARED_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/model/packed_batch.h"
#include "worker/steer/row_batches.h"

namespace bearing::steer {

// A row of tokens of which those from `first` on are scored, each given all before it. At least 1, and below the row's length.
struct ScoredRow {
  std::vector<int32_t> tokens;
  int64_t first = 1;

  int64_t num_scored() const { return static_cast<int64_t>(tokens.size()) - first; }
  // Tokens that go through the model: nothing is read behind the last one.
  int64_t num_fed() const { return static_cast<int64_t>(tokens.size()) - 1; }
};

// Consecutive rows whose first `prefix` tokens are computed once.
struct RowFamily {
  RowRange rows;
  int64_t prefix = 0;
  int64_t tokens = 0;  // That the family computes.
};

// All rows in their order. A row joins the family before it where that computes fewer tokens than starting another, as long as
// the family has at most `budget` tokens. A prefix ends before the first token that is read. Rows on both sides of `boundary`
// (of longrope; 0 = none) share nothing.
std::vector<RowFamily> ShareRows(absl::Span<const ScoredRow> rows, int64_t budget, int64_t boundary);

// Appends the family to the open group of `batch`, and the tokens to read (num_scored of each row) to `read`.
void AppendFamily(absl::Span<const ScoredRow> rows, const RowFamily& family, model::PackedBatch& batch,
                  std::vector<int64_t>& read);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_SHARED_ROWS_H_
