#include "worker/model/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/model/attention.h"
#include "worker/model/batch_view.h"
#include "worker/model/kernels.h"

namespace bearing::model {
namespace {

// Rows of a column-block of `matrix` copied to rows [begin, ...) of `to`.
void CopyRow(const at::Tensor& from, int64_t from_row, at::Tensor& to, int64_t to_row) {
  const int64_t bytes = to.size(1) * to.element_size();
  std::memcpy(static_cast<char*>(to.data_ptr()) + to_row * bytes,
              static_cast<const char*>(from.const_data_ptr()) + from_row * from.stride(0) * from.element_size(), bytes);
}

}  // namespace

Decoder::Decoder(const sharding::CheckpointReader& reader, const sharding::ShardPlan& plan, comm::Communicator& comm)
    : reader_(reader), plan_(plan), comm_(comm) {}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const sharding::CheckpointReader& reader,
                                                       const sharding::ShardPlan& plan, comm::Communicator& comm,
                                                       const DecoderOptions& options) {
  if (plan.tp() != comm.size()) {
    return absl::InternalError(absl::StrCat("plan and group differ in size: plan=", plan.tp(), " group=", comm.size()));
  }
  auto decoder = std::unique_ptr<Decoder>(new Decoder(reader, plan, comm));
  decoder->dtype_ = options.dtype;
  const sharding::ModelConfig& config = reader.config();
  // All ranks take rank 0's path, should their processors differ.
  std::string name;
  if (comm.rank() == 0) name = GemmPathName(options.gemm_path.value_or(ChooseGemmPath(options.dtype)));
  BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(name, 0));
  decoder->gemm_path_ = GemmPathFromName(name).value_or(GemmPath::kPlain);
  decoder->ropes_.resize(config.ropes.size());
  const absl::Status loaded = decoder->LoadWeights(options);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, loaded));
  return decoder;
}

absl::Status Decoder::LoadWeights(const DecoderOptions& options) {
  const WeightLoader loader(reader_, plan_, comm_.rank(), dtype_, gemm_path_);
  stream_tokens_ = options.stream_tokens;
  split_ = options.split;
  const int64_t steps = config().num_layers() + 1;
  BEARING_ASSIGN_OR_RETURN(ends_, loader.LoadEnds());
  options.progress(1, steps);
  if (options.residency == Residency::kStreamed) {
    layers_ = StreamLayers(loader, config().num_layers());
    options.progress(steps, steps);
    return absl::OkStatus();
  }
  BEARING_ASSIGN_OR_RETURN(
      layers_, LoadResidentLayers(loader, config().num_layers(), [&](int64_t done) { options.progress(done + 1, steps); }));
  return absl::OkStatus();
}

absl::StatusOr<const LayerWeights*> Decoder::LayerAt(int64_t layer) {
  absl::StatusOr<const LayerWeights*> weights = layers_->Get(layer);
  // Reading can fail on one rank alone.
  if (layers_->residency() == Residency::kStreamed) BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm_, weights.status()));
  return weights;
}

absl::Status Decoder::AddWrite(const std::vector<GroupRows>& groups, const NormGain& post_norm, at::Tensor& write,
                               at::Tensor& x) const {
  BEARING_RETURN_IF_ERROR(comm_.AllReduce(write, comm::ReduceOp::kSum));
  if (post_norm.gain_D.defined()) write = RmsNorm(write, post_norm, config().norm.eps);
  if (groups.empty()) AddRows(x, write, 0, x.size(0));
  for (const GroupRows& group : groups) {
    if (group.intervention->ablate_basis.defined()) {
      AddProjectedRows(x, write, group.begin, group.end, group.intervention->ablate_basis);
    } else {
      AddRows(x, write, group.begin, group.end);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Decoder::Embed(const PackedBatch& batch) {
  const int64_t d = config().d_model;
  const sharding::Range vocab = local_vocab();
  at::Tensor write = at::zeros({batch.num_tokens(), d}, ends_.embedding.scalar_type());
  for (int64_t t = 0; t < batch.num_tokens(); ++t) {
    const int64_t id = batch.token_ids[t];
    if (id < 0 || id >= config().vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id outside the vocabulary: id=", id, " vocab=", config().vocab_size));
    }
    if (id >= vocab.begin && id < vocab.end) CopyRow(ends_.embedding, id - vocab.begin, write, t);
  }
  write = write.to(dtype_);
  // The scale itself is rounded to the compute type, as transformers does.
  if (config().embedding_scale != 1.0) write.mul_(at::scalar_tensor(config().embedding_scale, dtype_).item());
  at::Tensor x = at::zeros_like(write);
  BEARING_RETURN_IF_ERROR(AddWrite(RowsOfGroups(batch), NormGain(), write, x));
  return x;
}

const RopeTable& Decoder::RopeFor(int rope, int64_t positions) const {
  RopeTable& table = ropes_[rope];
  if (table.positions < positions) {
    table = MakeRopeTable(config().ropes[rope], std::max<int64_t>({positions, 2 * table.positions, 512}));
  }
  return table;
}

std::vector<int32_t> Decoder::LongRopeRows(const RopeTable& table, const BatchView& view) {
  std::vector<int32_t> rows = view.positions;
  for (size_t t = 0; t < rows.size(); ++t) rows[t] += view.is_long[t] ? static_cast<int32_t>(table.positions) : 0;
  return rows;
}

at::Tensor Decoder::Attention(const LayerWeights& weights, const PackedBatch& batch, const BatchView& view, int64_t layer,
                              KvCache* cache, at::Tensor& qkv) const {
  const sharding::AttentionSpec& spec = config().layers[layer].attention;
  const sharding::RankPlan& rank = plan_.ranks[comm_.rank()];
  AttentionShape shape;
  shape.num_heads = rank.heads.size();
  shape.num_kv_heads = rank.kv_heads.size();
  shape.head_dim = spec.head_dim;
  shape.scale = spec.scale;
  shape.logit_softcap = spec.logit_softcap;
  shape.window = spec.sliding_window;
  const int64_t group = spec.num_heads / spec.num_kv_heads;
  for (int64_t h = rank.heads.begin; h < rank.heads.end; ++h) shape.kv_head_of.push_back(h / group - rank.kv_heads.begin);

  const int64_t q_width = shape.num_heads * shape.head_dim;
  const int64_t kv_width = shape.num_kv_heads * shape.head_dim;
  if (spec.qk_norm) {
    RmsNormHeads(qkv, 0, shape.num_heads, shape.head_dim, weights.query_norm, config().norm.eps);
    RmsNormHeads(qkv, q_width, shape.num_kv_heads, shape.head_dim, weights.key_norm, config().norm.eps);
  }
  const RopeTable& rope = RopeFor(spec.rope, view.longest);
  // Without longrope a position is its row.
  const bool has_long_rows = rope.cos.size(0) > rope.positions;
  const std::vector<int32_t> long_rows = has_long_rows ? LongRopeRows(rope, view) : std::vector<int32_t>();
  ApplyRope(qkv, 0, shape.num_heads + shape.num_kv_heads, shape.head_dim, rope.cos, rope.sin,
            has_long_rows ? long_rows : view.positions);

  const KeyValues own{qkv.narrow(1, q_width, kv_width), qkv.narrow(1, q_width + kv_width, kv_width)};
  KeyValues prefill;
  KeyValues decoded;
  if (cache != nullptr) {
    KvCache::Layer& stored = cache->layers[layer];
    if (!stored.prefill_keys.defined()) {
      stored.prefill_keys = own.keys.contiguous();
      stored.prefill_values = own.values.contiguous();
      stored.decoded_keys = at::empty({static_cast<int64_t>(cache->rows.size()) * cache->max_new, kv_width}, qkv.options());
      stored.decoded_values = at::empty_like(stored.decoded_keys);
    }
    for (const Segment& segment : batch.segments) {
      if (segment.cache_row < 0) continue;
      const int64_t slot = segment.cache_row * cache->max_new + cache->rows[segment.cache_row].decoded;
      CopyRow(own.keys, segment.begin, stored.decoded_keys, slot);
      CopyRow(own.values, segment.begin, stored.decoded_values, slot);
    }
    prefill = {stored.prefill_keys, stored.prefill_values};
    decoded = {stored.decoded_keys, stored.decoded_values};
  }
  const bool only_read = layer + 1 == config().num_layers();
  return Attend(shape, qkv, only_read ? view.read_rows : view.rows, {own, prefill, decoded});
}

at::Tensor Decoder::Mlp(const LayerWeights& weights, int64_t layer, const at::Tensor& x) const {
  const sharding::LayerSpec& spec = config().layers[layer];
  if (spec.moe.num_experts > 0) return Mixture(weights.mixture, spec.moe, spec.mlp.activation, x);
  return weights.mlp.down.Forward(GatedActivation(weights.mlp.gate_up.Forward(x), spec.mlp.activation)).contiguous();
}

absl::Status Decoder::RunBlock(const LayerWeights& weights, const PackedBatch& batch, const BatchView& view, int64_t layer,
                               absl::Span<const int64_t> read, const RunOptions& options, at::Tensor& x) {
  if (options.observe) options.observe(layer, x);
  for (const GroupRows& group : view.groups) {
    if (group.intervention->add.defined() && group.intervention->add_layer == layer) {
      AddVectorRows(x, group.begin, group.end, group.intervention->add);
    }
  }
  const double eps = config().norm.eps;
  const bool only_read = layer + 1 == config().num_layers();
  const std::vector<GroupRows>& groups = only_read ? view.read_groups : view.groups;

  at::Tensor qkv = weights.qkv.Forward(RmsNorm(x, weights.input_norm, eps));
  at::Tensor attended = Attention(weights, batch, view, layer, options.cache, qkv);
  qkv.reset();
  if (only_read) {
    const at::Tensor index = at::from_blob(const_cast<int64_t*>(read.data()), {static_cast<int64_t>(read.size())}, at::kLong);
    attended = attended.index_select(0, index);
    x = x.index_select(0, index);
  }
  at::Tensor write = weights.attention_out.Forward(attended).contiguous();
  BEARING_RETURN_IF_ERROR(AddWrite(groups, weights.attention_post_norm, write, x));
  write = Mlp(weights, layer, RmsNorm(x, weights.mlp_norm, eps));
  return AddWrite(groups, weights.mlp_post_norm, write, x);
}

void Decoder::EndPass(const PackedBatch& batch, const RunOptions& options, const at::Tensor& x) const {
  if (options.observe) options.observe(config().num_layers(), x);
  if (options.cache == nullptr) return;
  // A decode step has written one more token of each row to every layer.
  for (const Segment& segment : batch.segments) {
    if (segment.cache_row >= 0) ++options.cache->rows[segment.cache_row].decoded;
  }
}

absl::StatusOr<at::Tensor> Decoder::Run(const PackedBatch& batch, absl::Span<const int64_t> read, const RunOptions& options) {
  BEARING_ASSIGN_OR_RETURN(const BatchView view, MakeBatchView(config(), batch, read, options.cache));
  BEARING_ASSIGN_OR_RETURN(at::Tensor x, Embed(batch));
  for (int64_t layer = 0; layer < config().num_layers(); ++layer) {
    BEARING_ASSIGN_OR_RETURN(const LayerWeights* const weights, LayerAt(layer));
    BEARING_RETURN_IF_ERROR(RunBlock(*weights, batch, view, layer, read, options, x));
  }
  EndPass(batch, options, x);
  return x;
}

at::Tensor Decoder::LocalLogits(const at::Tensor& x_ND) const {
  at::Tensor logits = ends_.unembedding.ForwardFloat(RmsNorm(x_ND, ends_.final_norm, config().norm.eps));
  const double cap = config().final_logit_softcap;
  if (cap > 0) logits = logits.div_(cap).tanh_().mul_(cap);
  return logits;
}

KvCache Decoder::MakeCache(const PackedBatch& batch, absl::Span<const int> segments, int64_t max_new) const {
  KvCache cache;
  cache.max_new = max_new;
  cache.layers.resize(config().num_layers());
  for (const int index : segments) {
    const Segment& segment = batch.segments[index];
    KvCache::Row row;
    row.own_begin = segment.begin;
    row.own_count = segment.length;
    if (segment.parent >= 0) {
      row.prefix_begin = batch.segments[segment.parent].begin;
      row.prefix_count = batch.segments[segment.parent].length;
    }
    cache.rows.push_back(row);
  }
  return cache;
}

}  // namespace bearing::model
