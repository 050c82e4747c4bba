#include "worker/steer/capture.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>

#include "sharding/status_macros.h"
#include "worker/model/device_memory.h"

namespace bearing::steer {

namespace {

// The pass of one batch. It fills `captured` layer by layer, hands it on at its end, and lets go of it: passes live on.
model::Pass MakePass(const model::Decoder& decoder, const RowBatcher& batcher, RowRange range, const CaptureTask& task) {
  model::Pass pass;
  std::vector<int> segments;
  batcher.AppendGroup(range, model::Intervention(), pass.batch, segments, pass.read);
  auto captured = std::make_shared<CapturedBatch>();
  captured->range = range;
  std::vector<int64_t> positions;
  for (size_t r = 0; r < range.size(); ++r) {
    if (static_cast<int>((range.begin + r) % decoder.comm().size()) != decoder.comm().rank()) continue;
    captured->own.push_back(static_cast<int64_t>(r));
    for (int64_t p = 1 - task.num_positions; p <= 0; ++p) positions.push_back(pass.read[r] + p);
  }
  const int64_t num_layers = decoder.config().num_layers();
  const int64_t num_positions = task.num_positions;
  if (num_positions > 0) {
    pass.options.observe = [captured, num_layers, num_positions,
                            index = model::SendTensor(at::tensor(positions, at::kLong), decoder.device())](
                               int64_t layer, const at::Tensor& x) {
      if (layer == num_layers) return;
      const auto n = static_cast<int64_t>(captured->own.size());
      if (layer == 0)
        captured->residual_NLPD = at::empty({n, num_layers, num_positions, x.size(1)}, x.options().dtype(at::kFloat));
      captured->residual_NLPD.select(1, layer).copy_(x.index_select(0, index).view({n, num_positions, x.size(1)}));
    };
  }
  pass.done = [captured, &task](const at::Tensor& last_ND) -> absl::Status {
    captured->last_ND = last_ND;
    const absl::Status status = task.sink(*captured);
    *captured = CapturedBatch();
    return status;
  };
  return pass;
}

}  // namespace

absl::Status CaptureResiduals(Replicas& replicas, absl::Span<const CaptureTask> tasks, int64_t budget, size_t max_rows,
                              const Replicas::Progress& progress) {
  const model::Decoder& decoder = replicas.decoder();
  std::vector<model::Pass> passes;
  for (const CaptureTask& task : tasks) {
    const RowBatcher batcher(decoder.config(), *task.rows, std::max(task.num_positions, 1));
    const int64_t tokens = replicas.Budget(budget, batcher.TokensOf({0, task.rows->size()}));
    for (const RowRange range : batcher.Cut(tokens, max_rows)) passes.push_back(MakePass(decoder, batcher, range, task));
  }
  return replicas.Run(absl::MakeSpan(passes), Handout::kInTurn, progress);
}

ResidualMean::ResidualMean(int64_t num_layers, int64_t num_positions, int64_t d_model)
    : sum_LPD_(at::zeros({num_layers, num_positions, d_model}, at::kDouble)) {}

void ResidualMean::Add(const CapturedBatch& batch, const std::vector<bool>& keep) {
  // The sums stay on the device until the mean is taken.
  if (!batch.own.empty()) sum_LPD_ = sum_LPD_.to(batch.residual_NLPD.device());
  for (size_t i = 0; i < batch.own.size(); ++i) {
    if (keep[batch.own[i]]) sum_LPD_.add_(batch.residual_NLPD.select(0, static_cast<int64_t>(i)));
  }
  count_ += std::count(keep.begin(), keep.end(), true);
}

absl::StatusOr<at::Tensor> ResidualMean::Mean(const Replicas& replicas) const {
  at::Tensor count = at::full({1}, count_, at::kLong);
  BEARING_RETURN_IF_ERROR(replicas.Sum(count));
  if (count.item<int64_t>() == 0) return absl::FailedPreconditionError("no prompt is left to take the mean of");
  at::Tensor sum = sum_LPD_.to(replicas.decoder().device(), /*non_blocking=*/false, /*copy=*/true);
  BEARING_RETURN_IF_ERROR(replicas.decoder().comm().AllReduce(sum, comm::ReduceOp::kSum));
  BEARING_RETURN_IF_ERROR(replicas.Sum(sum));
  return (sum / count.item<double>()).permute({1, 0, 2}).contiguous().cpu();
}

}  // namespace bearing::steer
