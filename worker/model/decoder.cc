#include "worker/model/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/model/attention.h"
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
  // All ranks take the path that rank 0 measured: the same layout must give the same bits on all.
  std::string name;
  if (comm.rank() == 0) {
    name = GemmPathName(options.gemm_path.has_value()
                            ? *options.gemm_path
                            : ChooseGemmPath(options.dtype, config.d_model, 2 * plan.ranks[0].mlp.size()));
  }
  BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(name, 0));
  decoder->gemm_path_ = GemmPathFromName(name).value_or(GemmPath::kPlain);
  auto weights = LoadWeights(reader, plan, comm.rank(), options.dtype, decoder->gemm_path_, options.progress);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, weights.status()));
  decoder->weights_ = *std::move(weights);
  return decoder;
}

std::vector<Decoder::GroupRows> Decoder::RowsOfGroups(const PackedBatch& batch, absl::Span<const int64_t> read,
                                                      bool only_read) const {
  std::vector<GroupRows> rows;
  for (const Group& group : batch.groups) {
    if (group.num_segments == 0) continue;
    const Segment& last = batch.segments[group.first_segment + group.num_segments - 1];
    int64_t begin = batch.segments[group.first_segment].begin;
    int64_t end = last.begin + last.length;
    if (only_read) {
      begin = std::lower_bound(read.begin(), read.end(), begin) - read.begin();
      end = std::lower_bound(read.begin(), read.end(), end) - read.begin();
    }
    rows.push_back({&group.intervention, begin, end});
  }
  return rows;
}

void Decoder::AddWrite(const std::vector<GroupRows>& groups, const at::Tensor& write, at::Tensor& x) {
  if (groups.empty()) return AddRows(x, write, 0, x.size(0));
  for (const GroupRows& group : groups) {
    if (group.intervention->ablate_basis.defined()) {
      AddProjectedRows(x, write, group.begin, group.end, group.intervention->ablate_basis);
    } else {
      AddRows(x, write, group.begin, group.end);
    }
  }
}

absl::StatusOr<at::Tensor> Decoder::Embed(const PackedBatch& batch) {
  const int64_t d = config().d_model;
  const sharding::Range vocab = local_vocab();
  at::Tensor write = at::zeros({batch.num_tokens(), d}, weights_.embedding.scalar_type());
  for (int64_t t = 0; t < batch.num_tokens(); ++t) {
    const int64_t id = batch.token_ids[t];
    if (id < 0 || id >= config().vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id outside the vocabulary: id=", id, " vocab=", config().vocab_size));
    }
    if (id >= vocab.begin && id < vocab.end) CopyRow(weights_.embedding, id - vocab.begin, write, t);
  }
  write = write.to(dtype_);
  BEARING_RETURN_IF_ERROR(comm_.AllReduce(write, comm::ReduceOp::kSum));
  at::Tensor x = at::zeros_like(write);
  AddWrite(RowsOfGroups(batch, {}, /*only_read=*/false), write, x);
  return x;
}

const RopeTable& Decoder::RopeFor(int64_t positions) const {
  if (!rope_.cos.defined() || rope_.cos.size(0) < positions) {
    const int64_t room = std::max<int64_t>(positions, rope_.cos.defined() ? 2 * rope_.cos.size(0) : 512);
    rope_ = MakeRopeTable(config().rope, config().layers[0].attention.head_dim, room);
  }
  return rope_;
}

at::Tensor Decoder::Attention(const PackedBatch& batch, int64_t layer, absl::Span<const int64_t> read, KvCache* cache,
                              at::Tensor& qkv) const {
  const sharding::AttentionSpec& spec = config().layers[layer].attention;
  const sharding::RankPlan& rank = plan_.ranks[comm_.rank()];
  AttentionShape shape;
  shape.num_heads = rank.heads.size();
  shape.num_kv_heads = rank.kv_heads.size();
  shape.head_dim = spec.head_dim;
  shape.scale = spec.scale;
  const int64_t group = spec.num_heads / spec.num_kv_heads;
  for (int64_t h = rank.heads.begin; h < rank.heads.end; ++h) shape.kv_head_of.push_back(h / group - rank.kv_heads.begin);

  std::vector<int32_t> positions(batch.num_tokens());
  int64_t longest = 0;
  for (const Segment& segment : batch.segments) {
    for (int64_t i = 0; i < segment.length; ++i)
      positions[segment.begin + i] = static_cast<int32_t>(segment.first_position + i);
    longest = std::max(longest, segment.first_position + segment.length);
  }
  const RopeTable& rope = RopeFor(longest);
  ApplyRope(qkv, 0, shape.num_heads + shape.num_kv_heads, shape.head_dim, rope.cos, rope.sin, positions);

  const int64_t q_width = shape.num_heads * shape.head_dim;
  const int64_t kv_width = shape.num_kv_heads * shape.head_dim;
  const at::Tensor keys = qkv.narrow(1, q_width, kv_width);
  const at::Tensor values = qkv.narrow(1, q_width + kv_width, kv_width);

  KvCache::Layer* stored = cache != nullptr ? &cache->layers[layer] : nullptr;
  if (stored != nullptr && !stored->prefill_keys.defined()) {
    stored->prefill_keys = keys.contiguous();
    stored->prefill_values = values.contiguous();
    stored->decoded_keys = at::empty({static_cast<int64_t>(cache->rows.size()) * cache->max_new, kv_width}, qkv.options());
    stored->decoded_values = at::empty_like(stored->decoded_keys);
  }

  // In the last block only the tokens that are read have queries; each is then the last of its segment.
  const bool only_read = layer + 1 == config().num_layers();
  std::vector<AttentionRow> rows;
  rows.reserve(batch.segments.size());
  size_t next_read = 0;
  for (size_t s = 0; s < batch.segments.size(); ++s) {
    const Segment& segment = batch.segments[s];
    AttentionRow row;
    row.begin = segment.begin;
    row.num_queries = segment.length;
    if (only_read) {
      const int64_t last = segment.begin + segment.length - 1;
      if (next_read == read.size() || read[next_read] != last) continue;
      ++next_read;
      row.begin = last;
      row.num_queries = 1;
    }
    if (segment.cache_row >= 0) {
      KvCache::Row& cached = cache->rows[segment.cache_row];
      const int64_t slot = segment.cache_row * cache->max_new + cached.decoded;
      CopyRow(keys, segment.begin, stored->decoded_keys, slot);
      CopyRow(values, segment.begin, stored->decoded_values, slot);
      if (cached.prefix_count > 0) {
        row.spans[row.num_spans++] = {&stored->prefill_keys, &stored->prefill_values, cached.prefix_begin, cached.prefix_count};
      }
      row.spans[row.num_spans++] = {&stored->prefill_keys, &stored->prefill_values, cached.own_begin, cached.own_count};
      row.spans[row.num_spans++] = {&stored->decoded_keys, &stored->decoded_values, segment.cache_row * cache->max_new,
                                    cached.decoded + 1};
    } else {
      if (segment.parent >= 0) {
        const Segment& parent = batch.segments[segment.parent];
        row.spans[row.num_spans++] = {&keys, &values, parent.begin, parent.length};
      }
      row.spans[row.num_spans++] = {&keys, &values, segment.begin, segment.length};
    }
    rows.push_back(row);
  }
  return Attend(shape, qkv, rows);
}

absl::Status Decoder::RunBlock(const PackedBatch& batch, int64_t layer, absl::Span<const int64_t> read,
                               const RunOptions& options, at::Tensor& x) {
  const LayerWeights& weights = weights_.layers[layer];
  const double eps = config().norm.eps;
  const bool only_read = layer + 1 == config().num_layers();

  at::Tensor qkv = weights.qkv.Forward(RmsNorm(x, weights.input_norm, eps));
  at::Tensor attended = Attention(batch, layer, read, options.cache, qkv);
  qkv.reset();
  if (only_read) {
    const at::Tensor index = at::from_blob(const_cast<int64_t*>(read.data()), {static_cast<int64_t>(read.size())}, at::kLong);
    attended = attended.index_select(0, index);
    x = x.index_select(0, index);
  }
  const std::vector<GroupRows> groups = RowsOfGroups(batch, read, only_read);
  at::Tensor write = weights.attention_out.Forward(attended).contiguous();
  BEARING_RETURN_IF_ERROR(comm_.AllReduce(write, comm::ReduceOp::kSum));
  AddWrite(groups, write, x);

  write = weights.down.Forward(SiluMultiply(weights.gate_up.Forward(RmsNorm(x, weights.mlp_norm, eps)))).contiguous();
  BEARING_RETURN_IF_ERROR(comm_.AllReduce(write, comm::ReduceOp::kSum));
  AddWrite(groups, write, x);
  return absl::OkStatus();
}

absl::Status Decoder::RunBlocks(const PackedBatch& batch, int64_t first, int64_t end, absl::Span<const int64_t> read,
                                const RunOptions& options, at::Tensor& x) {
  const std::vector<GroupRows> groups = RowsOfGroups(batch, {}, /*only_read=*/false);
  for (int64_t layer = first; layer < end; ++layer) {
    if (options.observe) options.observe(layer, x);
    for (const GroupRows& group : groups) {
      if (group.intervention->add.defined() && group.intervention->add_layer == layer) {
        AddVectorRows(x, group.begin, group.end, group.intervention->add);
      }
    }
    BEARING_RETURN_IF_ERROR(RunBlock(batch, layer, read, options, x));
  }
  if (end == config().num_layers() && options.observe) options.observe(end, x);
  // A decode step has written one more token of each row to every layer.
  if (options.cache != nullptr && end == config().num_layers()) {
    for (const Segment& segment : batch.segments) {
      if (segment.cache_row >= 0) ++options.cache->rows[segment.cache_row].decoded;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Decoder::Run(const PackedBatch& batch, absl::Span<const int64_t> read, const RunOptions& options) {
  BEARING_ASSIGN_OR_RETURN(at::Tensor x, Embed(batch));
  BEARING_RETURN_IF_ERROR(RunBlocks(batch, 0, config().num_layers(), read, options, x));
  return x;
}

at::Tensor Decoder::LocalLogits(const at::Tensor& x_ND) const {
  return weights_.unembedding.ForwardFloat(RmsNorm(x_ND, weights_.final_norm, config().norm.eps));
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
