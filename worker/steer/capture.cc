#include "worker/steer/capture.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "sharding/status_macros.h"

namespace bearing::steer {

absl::Status CaptureResiduals(model::Decoder& decoder, const Rows& rows, int num_positions, int64_t budget, size_t max_rows,
                              const std::function<absl::Status(const CapturedBatch&)>& sink) {
  const RowBatcher batcher(decoder.config(), rows, std::max(num_positions, 1));
  const int64_t num_layers = decoder.config().num_layers();
  std::vector<model::Pass> passes;
  for (const RowRange range : batcher.Cut(budget, max_rows)) {
    model::Pass& pass = passes.emplace_back();
    std::vector<int> segments;
    batcher.AppendGroup(range, model::Intervention(), pass.batch, segments, pass.read);

    const auto n = static_cast<int64_t>(range.size());
    std::vector<int64_t> positions;
    positions.reserve(n * num_positions);
    for (const int64_t last : pass.read) {
      for (int64_t p = 1 - num_positions; p <= 0; ++p) positions.push_back(last + p);
    }
    auto captured = std::make_shared<CapturedBatch>();
    captured->range = range;
    pass.options.observe = [captured, n, num_layers, num_positions, index = at::tensor(positions, at::kLong)](
                               int64_t layer, const at::Tensor& x) {
      if (layer == num_layers || num_positions == 0) return;
      if (layer == 0) captured->residual_NLPD = at::empty({n, num_layers, num_positions, x.size(1)}, at::kFloat);
      captured->residual_NLPD.select(1, layer).copy_(x.index_select(0, index).view({n, num_positions, x.size(1)}));
    };
    pass.done = [captured, &sink](const at::Tensor& last_ND) -> absl::Status {
      captured->last_ND = last_ND;
      const absl::Status status = sink(*captured);
      *captured = CapturedBatch();  // The pass may outlive the batch's use by far.
      return status;
    };
  }
  return decoder.RunPasses(absl::MakeSpan(passes));
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
