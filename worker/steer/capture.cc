#include "worker/steer/capture.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "sharding/status_macros.h"

namespace bearing::steer {

absl::Status CaptureResiduals(model::Decoder& decoder, const Rows& rows, int num_positions, int64_t budget, size_t max_rows,
                              const std::function<absl::Status(const CapturedBatch&)>& sink) {
  const RowBatcher batcher(decoder.config(), rows, std::max(num_positions, 1));
  const int64_t num_layers = decoder.config().num_layers();
  for (const RowRange range : batcher.Cut(budget, max_rows)) {
    model::PackedBatch batch;
    std::vector<int> segments;
    std::vector<int64_t> read;
    batcher.AppendGroup(range, model::Intervention(), batch, segments, read);

    const int64_t n = static_cast<int64_t>(range.size());
    at::Tensor index = at::empty({n, num_positions}, at::kLong);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t p = 0; p < num_positions; ++p) {
        index.data_ptr<int64_t>()[r * num_positions + p] = read[r] - num_positions + 1 + p;
      }
    }
    index = index.reshape(-1);
    CapturedBatch captured;
    captured.range = range;
    captured.residual_NLPD = at::empty({n, num_layers, num_positions, decoder.config().d_model}, at::kFloat);
    model::RunOptions options;
    options.observe = [&](int64_t layer, const at::Tensor& x) {
      if (layer == num_layers || num_positions == 0) return;
      captured.residual_NLPD.select(1, layer).copy_(x.index_select(0, index).view({n, num_positions, x.size(1)}));
    };
    BEARING_ASSIGN_OR_RETURN(captured.last_ND, decoder.Run(batch, read, options));
    BEARING_RETURN_IF_ERROR(sink(captured));
  }
  return absl::OkStatus();
}

void ResidualMean::Add(const at::Tensor& residual_NLPD, const std::vector<bool>& keep) {
  if (!sum_LPD_.defined()) {
    sum_LPD_ = at::zeros({residual_NLPD.size(1), residual_NLPD.size(2), residual_NLPD.size(3)}, at::kDouble);
  }
  for (int64_t r = 0; r < residual_NLPD.size(0); ++r) {
    if (!keep[r]) continue;
    sum_LPD_.add_(residual_NLPD.select(0, r));
    ++count_;
  }
}

absl::StatusOr<at::Tensor> ResidualMean::Mean() const {
  if (count_ == 0) return absl::FailedPreconditionError("no prompt is left to take the mean of");
  return (sum_LPD_ / static_cast<double>(count_)).permute({1, 0, 2}).contiguous();
}

}  // namespace bearing::steer
