// Reads the residual stream at the last positions of prompts, at the input of every block, and sums it in fp64.
//
// Letters of shapes: N prompts, P positions (oldest first: -P .. -1), L layers, D d_model.
#ifndef BEARING_WORKER_STEER_CAPTURE_H_
#define BEARING_WORKER_STEER_CAPTURE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/decoder.h"
#include "worker/steer/replicas.h"
#include "worker/steer/row_batches.h"

namespace bearing::steer {

// What one batch of prompts gave.
struct CapturedBatch {
  RowRange range;
  // The residual stream is whole on every rank, so each keeps the rows of its turn only: 1/ranks of the memory and of the sums.
  std::vector<int64_t> own;  // Rows of the range that this rank keeps, ascending, counted from range.begin.
  at::Tensor residual_NLPD;  // [own rows, L, P, D] fp32: block inputs, on the decoder's device. Undefined without positions.
  at::Tensor last_ND;        // [rows, D]: input of the final norm at the last position, on every rank.
};

// Rows to run without intervention, and who takes what is read.
struct CaptureTask {
  const Rows* rows = nullptr;
  int num_positions = 0;  // 0: only last_ND.
  RowRange part;          // Rows that are run; ranges of batches count from the first of `rows`.
  // Called as each batch is done, on the ranks of the replica that ran it; may run collectives of that replica.
  std::function<absl::Status(const CapturedBatch&)> sink;
};

// A task of all rows.
CaptureTask CaptureAll(const Rows& rows, int num_positions, std::function<absl::Status(const CapturedBatch&)> sink);

// Runs all tasks in batches of at most `budget` tokens and `max_rows` rows, dealt out to the replicas in turn. Streamed weights
// are read once for all of them, or as often as it takes for the captured rows, which wait for the last layer then, to need no
// more memory than `stream_tokens` residuals of the decoder's options. Collective over all replicas.
//
// Nothing here grows with the rows but a range for each batch: passes are made some at a time.
absl::Status CaptureResiduals(Replicas& replicas, absl::Span<const CaptureTask> tasks, int64_t budget, size_t max_rows,
                              const Replicas::Progress& progress = {});

// Running mean of residuals of one side, in fp64; ranks sum their rows and meet once.
class ResidualMean {
 public:
  ResidualMean() = default;
  ResidualMean(int64_t num_layers, int64_t num_positions, int64_t d_model);

  // Adds the rows of the batch whose flag (one for each row of its range, the same on every rank) is set.
  void Add(const CapturedBatch& batch, const std::vector<bool>& keep);

  // Of this replica, all its ranks.
  int64_t count() const { return count_; }

  // [P, L, D] fp64 in host memory, the same bits on every rank. Collective over all replicas. FailedPrecondition if nothing was
  // added.
  absl::StatusOr<at::Tensor> Mean(const Replicas& replicas) const;

 private:
  at::Tensor sum_LPD_;
  int64_t count_ = 0;
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_CAPTURE_H_
