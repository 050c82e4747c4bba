#include "worker/trace.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bridge/chat_tokenizer.h"
#include "jobs/prompt_set.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/memory_rules.h"
#include "sharding/safetensors.h"
#include "sharding/shard_plan.h"
#include "sharding/status_macros.h"
#include "storage/model_source.h"
#include "worker/edit/direction_input.h"
#include "worker/intervention_of.h"
#include "worker/model/decoder.h"
#include "worker/model/device_memory.h"
#include "worker/steer/direction_file.h"
#include "worker/steer/row_batches.h"
#include "worker/token_rows.h"

namespace bearing::worker {
namespace {

absl::StatusOr<steer::Rows> ReadRows(const TraceOptions& options, const storage::ModelSource& source) {
  if (!options.token_ids.empty()) return ReadTokenIds(options.token_ids);
  BEARING_ASSIGN_OR_RETURN(const auto prompts, jobs::LoadPrompts(options.prompts, "", 0));
  BEARING_ASSIGN_OR_RETURN(const auto tokenizer, bridge::ChatTokenizer::Load(source.folder()));
  return EncodePrompts(*tokenizer, prompts);
}

absl::StatusOr<model::Intervention> ReadIntervention(const TraceOptions& options, const sharding::ModelConfig& config) {
  model::Intervention intervention;
  if (!options.ablate.empty()) {
    // As the edit reads and removes it.
    BEARING_ASSIGN_OR_RETURN(const edit::DirectionInput direction, edit::ReadDirectionInput(options.ablate));
    edit::EditSpec spec;
    spec.directions = direction.directions;
    BEARING_RETURN_IF_ERROR(edit::ParseStrengths(options.strengths, &spec));
    BEARING_ASSIGN_OR_RETURN(intervention, RemovalOf(spec, config.num_layers(), config.d_model));
  }
  if (!options.add.empty()) {
    if (options.layer < 0 || options.layer >= config.num_layers()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--layer is outside the model: layer=", options.layer, " layers=", config.num_layers()));
    }
    BEARING_ASSIGN_OR_RETURN(const steer::Direction direction, steer::ReadDirection(options.add, config.d_model));
    intervention.add = direction.added();
    intervention.add_layer = options.layer;
  }
  return intervention;
}

absl::Status Write(const TraceOptions& options, const steer::Rows& rows, const at::Tensor& residual, const at::Tensor& logits) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  std::vector<int64_t> ids(rows.size() * longest, -1);
  std::vector<int64_t> lengths;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::copy(rows[r].begin(), rows[r].end(), ids.begin() + static_cast<std::ptrdiff_t>(r * longest));
    lengths.push_back(static_cast<int64_t>(rows[r].size()));
  }
  const auto n = static_cast<int64_t>(rows.size());
  return sharding::WriteSafetensors(
      options.out,
      {{"residual", sharding::DType::kF32, residual.sizes().vec(), residual.const_data_ptr<float>()},
       {"logits", sharding::DType::kF32, logits.sizes().vec(), logits.const_data_ptr<float>()},
       {"token_ids", sharding::DType::kI64, {n, static_cast<int64_t>(longest)}, ids.data()},
       {"lengths", sharding::DType::kI64, {n}, lengths.data()}},
      {{"dtype", options.dtype}, {"format", "bearing/trace/v1"}});
}

absl::Status Trace(comm::Communicator& comm, const TraceOptions& options) {
  const auto source = storage::ModelSource::Open(options.model);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, source.status()));
  const auto opened = (*source)->OpenCheckpoint();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, opened.status()));
  const sharding::CheckpointReader& reader = **opened;
  // Every rank reads the small inputs itself; all see the same files or fail together.
  auto rows = ReadRows(options, **source);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, rows.status()));
  auto intervention = ReadIntervention(options, reader.config());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, intervention.status()));
  BEARING_ASSIGN_OR_RETURN(const sharding::ShardPlan plan,
                           sharding::MakeShardPlan(reader.config(), reader.layout(), comm.size()));

  model::DecoderOptions decoder_options;
  decoder_options.dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  if (!options.gemm.empty()) decoder_options.gemm_path = model::GemmPathFromName(options.gemm);
  BEARING_ASSIGN_OR_RETURN(const auto decoder, model::Decoder::Load(reader, plan, comm, decoder_options));

  const int64_t num_layers = reader.config().num_layers();
  const auto n = static_cast<int64_t>(rows->size());
  at::Tensor residual = at::empty({n, num_layers + 1, reader.config().d_model}, at::device(comm.device()).dtype(at::kFloat));
  at::Tensor logits = comm.rank() == 0 ? at::empty({n, reader.config().vocab_size}, at::kFloat) : at::Tensor();
  const steer::RowBatcher batcher(reader.config(), *rows, /*keep=*/1);
  for (const steer::RowRange range : batcher.Cut(sharding::TokenBudget(reader.config(), int64_t{1} << 30))) {
    model::PackedBatch batch;
    std::vector<int> segments;
    std::vector<int64_t> read;
    batcher.AppendGroup(range, *intervention, batch, segments, read);
    const at::Tensor index = model::SendTensor(at::tensor(read, at::kLong), comm.device());
    const auto begin = static_cast<int64_t>(range.begin);
    const auto count = static_cast<int64_t>(range.size());
    model::RunOptions run;
    run.observe = [&](int64_t layer, const at::Tensor& x) {
      residual.narrow(0, begin, count).select(1, layer).copy_(layer == num_layers ? x : x.index_select(0, index));
    };
    BEARING_ASSIGN_OR_RETURN(const at::Tensor last, decoder->Run(batch, read, run));
    // Gathered along the vocabulary, which is the first axis after the transposition.
    BEARING_ASSIGN_OR_RETURN(const at::Tensor all, comm.AllGather(decoder->LocalLogits(last).t().contiguous()));
    if (comm.rank() == 0) logits.narrow(0, begin, count).copy_(all.t());
  }
  return comm::AgreeOnStatus(comm, comm.rank() == 0 ? Write(options, *rows, residual.cpu(), logits) : absl::OkStatus());
}

}  // namespace

absl::Status RunTrace(comm::Communicator& comm, const TraceOptions& options) {
  try {
    return Trace(comm, options);
  } catch (const std::exception& error) {
    if (comm.size() > 1) comm.Abort(error.what());
    return absl::InternalError(error.what());
  }
}

}  // namespace bearing::worker
