#include "worker/model/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/model/attention.h"
#include "worker/model/batch_view.h"
#include "worker/model/device_memory.h"
#include "worker/model/work_done.h"

namespace bearing::model {
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
  decoder->ops_ = options.aten_ops ? &AtenOps() : &OpsFor(comm.device());
  const sharding::ModelConfig& config = reader.config();
  if (decoder->ops_ == &CpuOps()) {  // The other paths are of the CPU.
    // All ranks take rank 0's path, should their processors differ.
    std::string name;
    const GemmPath chosen =
        options.residency == Residency::kStreamed ? ChooseStreamedGemmPath(options.dtype) : ChooseGemmPath(options.dtype);
    if (comm.rank() == 0) name = GemmPathName(options.gemm_path.value_or(chosen));
    BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(name, 0));
    decoder->gemm_path_ = GemmPathFromName(name).value_or(GemmPath::kPlain);
  }
  decoder->ropes_.resize(config.ropes.size());
  const absl::Status loaded = decoder->LoadWeights(options);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, loaded));
  return decoder;
}

absl::Status Decoder::LoadWeights(const DecoderOptions& options) {
  const WeightLoader loader(reader_, plan_, comm_.rank(), dtype_, gemm_path_, device());
  stream_tokens_ = options.stream_tokens;
  split_ = options.split;
  const int64_t steps = config().num_layers() + 1;
  BEARING_ASSIGN_OR_RETURN(ends_, loader.LoadEnds());
  options.progress(1, steps);
  if (options.residency == Residency::kStreamed) {
    layers_ = StreamLayers(loader, config().num_layers(), device());
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

absl::Status Decoder::AddWrite(const BatchView& view, Tokens tokens, const WriteSite& site, const NormGain& post_norm,
                               at::Tensor& write, at::Tensor& x, at::Tensor* product) const {
  BEARING_RETURN_IF_ERROR(comm_.AllReduce(write, comm::ReduceOp::kSum));
  if (product != nullptr) *product = write;
  if (post_norm.gain_D.defined()) write = ops_->RmsNorm(write, post_norm, config().norm.eps);
  ops_->AddWrite(x, write, view, tokens, site);
  return absl::OkStatus();
}

absl::StatusOr<BatchView> Decoder::MakeView(const PackedBatch& batch, absl::Span<const int64_t> read,
                                            const KvCache* cache) const {
  BEARING_ASSIGN_OR_RETURN(BatchView view, MakeBatchView(config(), batch, read, cache));
  ops_->Prepare(batch, device(), view);
  return view;
}

absl::StatusOr<at::Tensor> Decoder::Embed(const PackedBatch& batch, const BatchView& view) {
  for (const int64_t id : batch.token_ids) {
    if (id < 0 || id >= config().vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id outside the vocabulary: id=", id, " vocab=", config().vocab_size));
    }
  }
  at::Tensor write = ops_->Embed(ends_.embedding, local_vocab(), batch, view).to(dtype_);
  // The scale itself is rounded to the compute type, as transformers does.
  if (config().embedding_scale != 1.0) write.mul_(at::scalar_tensor(config().embedding_scale, dtype_).item());
  at::Tensor x = at::zeros_like(write);
  BEARING_RETURN_IF_ERROR(AddWrite(view, Tokens::kAll, WriteSite(), NormGain(), write, x));
  return x;
}

const RopeTable& Decoder::RopeFor(int rope, int64_t positions) const {
  RopeTable& table = ropes_[rope];
  if (table.positions < positions) {
    table = MakeRopeTable(config().ropes[rope], std::max<int64_t>({positions, 2 * table.positions, 512}));
    table.cos = SendTensor(table.cos, device());
    table.sin = SendTensor(table.sin, device());
  }
  return table;
}

at::Tensor Decoder::Attention(const LayerWeights& weights, const BatchView& view, int64_t layer, KvCache* cache,
                              at::Tensor& qkv) const {
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
    ops_->RmsNormHeads(qkv, 0, shape.num_heads, shape.head_dim, weights.query_norm, config().norm.eps);
    ops_->RmsNormHeads(qkv, q_width, shape.num_kv_heads, shape.head_dim, weights.key_norm, config().norm.eps);
  }
  ops_->ApplyRope(qkv, shape.num_heads + shape.num_kv_heads, shape.head_dim, RopeFor(spec.rope, view.longest), view);

  const at::Tensor own = qkv.narrow(1, q_width, 2 * kv_width);
  at::Tensor stored;
  if (cache != nullptr) {
    at::Tensor& in_cache = cache->layers[layer];
    if (!in_cache.defined()) {
      const auto slots = static_cast<int64_t>(cache->rows.size()) * cache->max_new;
      in_cache = at::empty({cache->prefill_tokens + slots, 2 * kv_width}, qkv.options());
      in_cache.narrow(0, 0, cache->prefill_tokens).copy_(own);
    }
    ops_->StoreDecoded(own, view, in_cache);
    stored = in_cache;
  }
  const auto split = [kv_width](const at::Tensor& kv) {
    return kv.defined() ? KeyValues{kv.narrow(1, 0, kv_width), kv.narrow(1, kv_width, kv_width)} : KeyValues();
  };
  const bool only_read = layer + 1 == config().num_layers();
  return ops_->Attend(shape, qkv, view, only_read ? Tokens::kRead : Tokens::kAll, {split(own), split(stored)});
}

at::Tensor Decoder::Mlp(const LayerWeights& weights, int64_t layer, const at::Tensor& x) const {
  const sharding::LayerSpec& spec = config().layers[layer];
  if (spec.moe.num_experts > 0) return Mixture(*ops_, weights.mixture, spec.moe, spec.mlp.activation, x);
  return weights.mlp.down.Forward(ops_->GatedActivation(weights.mlp.gate_up.Forward(x), spec.mlp.activation)).contiguous();
}

absl::Status Decoder::RunBlock(const LayerWeights& weights, const BatchView& view, int64_t layer, const RunOptions& options,
                               at::Tensor& x) {
  WorkOfThread().tokens += static_cast<double>(x.size(0)) / static_cast<double>(config().num_layers());
  if (options.observe) options.observe(layer, x);
  ops_->AddVectors(x, layer, view);
  const double eps = config().norm.eps;
  at::Tensor qkv = weights.qkv.Forward(ops_->RmsNorm(x, weights.input_norm, eps));
  const at::Tensor attended = Attention(weights, view, layer, options.cache, qkv);
  qkv.reset();
  // The last block works behind its attention only at the tokens that are read.
  const Tokens tokens = layer + 1 == config().num_layers() ? Tokens::kRead : Tokens::kAll;
  if (tokens == Tokens::kRead) x = ops_->TakeRead(x, view);
  at::Tensor product;
  at::Tensor* const kept = options.observe_write ? &product : nullptr;
  at::Tensor write = weights.attention_out.Forward(attended).contiguous();
  BEARING_RETURN_IF_ERROR(AddWrite(view, tokens, {Writer::kAttention, layer}, weights.attention_post_norm, write, x, kept));
  if (options.observe_write) options.observe_write({layer, /*is_attention=*/true, attended, product, write});
  write = Mlp(weights, layer, ops_->RmsNorm(x, weights.mlp_norm, eps));
  BEARING_RETURN_IF_ERROR(AddWrite(view, tokens, {Writer::kMlp, layer}, weights.mlp_post_norm, write, x, kept));
  if (options.observe_write) options.observe_write({layer, /*is_attention=*/false, at::Tensor(), product, write});
  return absl::OkStatus();
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
  BEARING_ASSIGN_OR_RETURN(const BatchView view, MakeView(batch, read, options.cache));
  BEARING_ASSIGN_OR_RETURN(at::Tensor x, Embed(batch, view));
  for (int64_t layer = 0; layer < config().num_layers(); ++layer) {
    BEARING_ASSIGN_OR_RETURN(const LayerWeights* const weights, LayerAt(layer));
    BEARING_RETURN_IF_ERROR(RunBlock(*weights, view, layer, options, x));
  }
  EndPass(batch, options, x);
  return x;
}

at::Tensor Decoder::LocalLogits(const at::Tensor& x_ND) const {
  at::Tensor logits = ends_.unembedding.ForwardFloat(ops_->RmsNorm(x_ND, ends_.final_norm, config().norm.eps));
  const double cap = config().final_logit_softcap;
  if (cap > 0) logits = logits.div_(cap).tanh_().mul_(cap);
  return logits;
}

KvCache Decoder::MakeCache(const PackedBatch& batch, absl::Span<const int> segments, int64_t max_new) const {
  KvCache cache;
  cache.prefill_tokens = batch.num_tokens();
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
