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
#include "worker/model/decoder.h"
#include "worker/steer/row_batches.h"

namespace bearing::steer {

// What one batch of prompts gave.
struct CapturedBatch {
  RowRange range;
  at::Tensor residual_NLPD;  // [rows, L, P, D] fp32: block inputs.
  at::Tensor last_ND;        // [rows, D]: input of the final norm at the last position.
};

// Runs `rows` (without intervention) in batches of at most `budget` tokens and `max_rows` rows and hands each batch to `sink`
// as it is done. Every rank gets the same data. With num_positions = 0 only last_ND is filled. `sink` may run collectives.
absl::Status CaptureResiduals(model::Decoder& decoder, const Rows& rows, int num_positions, int64_t budget, size_t max_rows,
                              const std::function<absl::Status(const CapturedBatch&)>& sink);

// Running mean of residuals of one side; merges are exact in the order given (fp64 sums).
class ResidualMean {
 public:
  // Adds the rows of `residual_NLPD` whose flag is set.
  void Add(const at::Tensor& residual_NLPD, const std::vector<bool>& keep);

  int64_t count() const { return count_; }

  // [P, L, D] fp64. FailedPrecondition if nothing was added.
  absl::StatusOr<at::Tensor> Mean() const;

 private:
  at::Tensor sum_LPD_;
  int64_t count_ = 0;
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_CAPTURE_H_
