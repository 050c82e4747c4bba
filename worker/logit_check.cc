#include "worker/logit_check.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "sharding/shard_plan.h"
#include "sharding/status_macros.h"
#include "storage/model_source.h"
#include "worker/steer/concept_metric.h"

namespace bearing::worker {
namespace {

constexpr int64_t kCheckedRows = 16;
constexpr int64_t kShortestRow = 5;

// Tokens from a linear congruential generator: the same on every rank and machine.
steer::Rows DrawRows(int64_t vocabulary) {
  uint64_t state = 1;
  steer::Rows rows;
  for (int64_t r = 0; r < kCheckedRows; ++r) {
    std::vector<int32_t> row;
    for (int64_t t = 0; t < kShortestRow + r; ++t) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      row.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary)));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

struct OpenedModel {
  std::unique_ptr<storage::ModelSource> source;
  std::unique_ptr<sharding::CheckpointReader> reader;
  sharding::ShardPlan plan;
};

absl::StatusOr<OpenedModel> Open(const std::string& model, int ranks) {
  OpenedModel opened;
  BEARING_ASSIGN_OR_RETURN(opened.source, storage::ModelSource::Open(model));
  BEARING_ASSIGN_OR_RETURN(opened.reader, opened.source->OpenCheckpoint());
  BEARING_ASSIGN_OR_RETURN(opened.plan, sharding::MakeShardPlan(opened.reader->config(), opened.reader->layout(), ranks));
  return opened;
}

absl::StatusOr<std::unique_ptr<model::Decoder>> Load(const OpenedModel& opened, comm::Communicator& comm) {
  model::DecoderOptions options;
  options.residency = model::Residency::kStreamed;
  return model::Decoder::Load(*opened.reader, opened.plan, comm, options);
}

}  // namespace

absl::StatusOr<LogitProbe> RunLogitProbe(model::Decoder& decoder, const steer::Rows& rows,
                                         const model::Intervention& intervention) {
  const steer::RowBatcher batcher(decoder.config(), rows, /*keep=*/1);
  model::PackedBatch batch;
  std::vector<int> segments;
  std::vector<int64_t> read;
  batcher.AppendGroup({0, rows.size()}, intervention, batch, segments, read);
  BEARING_ASSIGN_OR_RETURN(const at::Tensor last, decoder.Run(batch, read, {}));
  LogitProbe probe;
  probe.logits_NV = decoder.LocalLogits(last);
  BEARING_ASSIGN_OR_RETURN(probe.probabilities_NV, steer::SoftmaxInPlace(decoder, probe.logits_NV.clone()));
  return probe;
}

absl::StatusOr<nlohmann::json> CompareLogits(const model::Decoder& decoder, comm::Communicator& comm, const LogitProbe& edited,
                                             const LogitProbe& ablated, const LogitProbe& baseline) {
  const auto largest = [&](const LogitProbe& other) -> absl::StatusOr<double> {
    at::Tensor difference = at::amax(at::abs(edited.logits_NV - other.logits_NV)).reshape({1}).contiguous();
    BEARING_RETURN_IF_ERROR(comm.AllReduce(difference, comm::ReduceOp::kMax));
    return static_cast<double>(difference.item<float>());
  };
  BEARING_ASSIGN_OR_RETURN(const double to_ablated, largest(ablated));
  BEARING_ASSIGN_OR_RETURN(const double to_baseline, largest(baseline));
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> kl,
                           steer::RowKl(decoder, ablated.probabilities_NV, edited.probabilities_NV));
  double sum = 0;
  for (const double v : kl) sum += v;
  return nlohmann::json{{"prompts", kl.size()},
                        {"max_logit_difference_to_ablation", to_ablated},
                        {"max_logit_difference_to_baseline", to_baseline},
                        {"mean_kl_to_ablation", sum / static_cast<double>(kl.size())}};
}

absl::StatusOr<nlohmann::json> CheckEditedLogits(comm::Communicator& comm, const std::string& original,
                                                 const std::string& edited, const edit::Basis& basis) {
  const absl::StatusOr<OpenedModel> before = Open(original, comm.size());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, before.status()));
  const absl::StatusOr<OpenedModel> after = Open(edited, comm.size());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, after.status()));
  const steer::Rows rows = DrawRows(before->reader->config().vocab_size);
  model::Intervention ablation;
  ablation.ablate_basis = at::tensor(basis.vectors, at::kDouble).reshape({basis.count, basis.d}).to(at::kFloat).contiguous();
  LogitProbe baseline;
  LogitProbe ablated;
  {
    BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<model::Decoder> decoder, Load(*before, comm));
    BEARING_ASSIGN_OR_RETURN(baseline, RunLogitProbe(*decoder, rows, {}));
    BEARING_ASSIGN_OR_RETURN(ablated, RunLogitProbe(*decoder, rows, ablation));
  }
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<model::Decoder> decoder, Load(*after, comm));
  BEARING_ASSIGN_OR_RETURN(const LogitProbe written, RunLogitProbe(*decoder, rows, {}));
  return CompareLogits(*decoder, comm, written, ablated, baseline);
}

}  // namespace bearing::worker
