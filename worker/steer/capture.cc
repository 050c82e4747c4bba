#include "worker/steer/capture.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

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

// One batch to come.
struct Piece {
  const CaptureTask* task;
  const RowBatcher* batcher;
  RowRange range;
  int64_t tokens;
};

// Passes that are made at once, for all replicas together: tokens, and captured positions.
struct ChunkLimits {
  int64_t tokens;
  int64_t positions;
};

ChunkLimits LimitsOf(const model::Decoder& decoder, int64_t replicas) {
  constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
  // Resident, a pass hands on what it captured before the next begins: only token ids are held.
  if (decoder.residency() == model::Residency::kResident) return {replicas << 16, kUnlimited};
  // A captured position is a vector a layer, fp32, on one rank of the replica; a token that waits is one on each.
  const int64_t ranks = decoder.comm().size();
  return {kUnlimited, replicas * std::max<int64_t>(1, decoder.stream_tokens() * ranks / decoder.config().num_layers())};
}

}  // namespace

CaptureTask CaptureAll(const Rows& rows, int num_positions, std::function<absl::Status(const CapturedBatch&)> sink) {
  return {&rows, num_positions, {0, rows.size()}, std::move(sink)};
}

absl::Status CaptureResiduals(Replicas& replicas, absl::Span<const CaptureTask> tasks, int64_t budget, size_t max_rows,
                              const Replicas::Progress& progress) {
  const model::Decoder& decoder = replicas.decoder();
  std::vector<std::unique_ptr<RowBatcher>> batchers;
  std::vector<Piece> pieces;
  double all = 0;
  for (const CaptureTask& task : tasks) {
    batchers.push_back(std::make_unique<RowBatcher>(decoder.config(), *task.rows, std::max(task.num_positions, 1)));
    const RowBatcher& batcher = *batchers.back();
    const int64_t tokens = replicas.Budget(budget, batcher.TokensOf(task.part));
    for (const RowRange range : batcher.Cut(task.part, tokens, max_rows)) {
      pieces.push_back({&task, &batcher, range, batcher.TokensOf(range)});
      all += static_cast<double>(pieces.back().tokens);
    }
  }
  const ChunkLimits limits = LimitsOf(decoder, replicas.count());
  double before = 0;
  for (size_t next = 0; next < pieces.size();) {
    std::vector<model::Pass> passes;
    int64_t tokens = 0;
    int64_t rows = 0;
    for (; next < pieces.size(); ++next) {
      const Piece& piece = pieces[next];
      const int64_t captured = piece.task->num_positions * static_cast<int64_t>(piece.range.size());
      if (!passes.empty() && (tokens + piece.tokens > limits.tokens || rows + captured > limits.positions)) break;
      passes.push_back(MakePass(decoder, *piece.batcher, piece.range, *piece.task));
      tokens += piece.tokens;
      rows += captured;
    }
    const auto of_all = [&](double share) { return progress((before + share * static_cast<double>(tokens)) / all); };
    BEARING_RETURN_IF_ERROR(
        replicas.Run(absl::MakeSpan(passes), Handout::kInTurn, progress ? Replicas::Progress(of_all) : Replicas::Progress()));
    before += static_cast<double>(tokens);
  }
  return absl::OkStatus();
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
