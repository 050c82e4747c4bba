#include "worker/steer/probe.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "sharding/status_macros.h"
#include "worker/model/device_memory.h"

namespace bearing::steer {
namespace {

using model::PackedBatch;

constexpr int64_t kHeadNumbers = int64_t{1} << 24;  // 64 MiB.

// Tokens of whole rows in a packed batch: the shared prefix, then the row's own.
std::vector<int64_t> TokensOfRow(const PackedBatch& batch, int segment) {
  const model::Segment& own = batch.segments[static_cast<size_t>(segment)];
  std::vector<int64_t> tokens;
  const auto append = [&tokens](const model::Segment& part) {
    for (int64_t t = 0; t < part.length; ++t) tokens.push_back(part.begin + t);
  };
  if (own.parent >= 0) append(batch.segments[static_cast<size_t>(own.parent)]);
  append(own);
  return tokens;
}

at::Tensor IndexTensor(const std::vector<int64_t>& list, const at::Device& device) {
  return model::SendTensor(at::tensor(list, at::kLong), device);
}

// The numbers of one batch, layer by layer as it runs. Rank 0 projects; every rank fills its heads.
class BatchProbe {
 public:
  BatchProbe(const model::Decoder& decoder, const at::Tensor& basis_DK, const std::vector<HeadVectors>& vectors,
             sharding::Range heads, const std::vector<int64_t>& read)
      : decoder_(decoder),
        basis_DK_(basis_DK),
        vectors_(vectors),
        heads_(heads),
        rows_(static_cast<int64_t>(read.size())),
        read_(IndexTensor(read, decoder.device())) {
    const int64_t K = basis_DK.size(1);
    projection_ = Empty({layers() + 1, rows_, K});
    norm_ = Empty({layers() + 1, rows_});
    attention_ = Empty({layers(), rows_, K});
    mlp_ = Empty({layers(), rows_, K});
    part_of_heads_ = Empty({layers(), rows_, K, decoder.config().layers.front().attention.num_heads}).zero_();
  }

  void WantTokens(size_t row, const std::vector<int64_t>& tokens) {
    wanted_.insert(wanted_.end(), tokens.begin(), tokens.end());
    token_rows_.push_back({row, static_cast<int64_t>(tokens.size())});
  }

  // For the run of the batch; refers to this.
  model::RunOptions Options() {
    wanted_index_ = IndexTensor(wanted_, decoder_.device());
    const auto total = static_cast<int64_t>(wanted_.size());
    token_projection_ = Empty({layers(), total, basis_DK_.size(1)});
    token_norm_ = Empty({layers(), total});
    model::RunOptions run;
    if (is_root()) run.observe = [this](int64_t layer, const at::Tensor& x) { Observe(layer, x); };
    run.observe_write = [this](const model::BlockWrite& write) { ObserveWrite(write); };
    return run;
  }

  // Collective.
  absl::StatusOr<ProbedBatch> Take() {
    BEARING_RETURN_IF_ERROR(decoder_.comm().AllReduce(part_of_heads_, comm::ReduceOp::kSum));
    ProbedBatch probed;
    if (!is_root()) return probed;
    const auto by_row = [](const at::Tensor& t) { return t.permute({1, 2, 0}).contiguous().cpu(); };
    probed.projection = by_row(projection_);
    probed.norm = norm_.t().contiguous().cpu();
    probed.attention = by_row(attention_);
    probed.mlp = by_row(mlp_);
    probed.heads = part_of_heads_.permute({1, 2, 0, 3}).contiguous().cpu();
    int64_t first = 0;
    for (const auto& [row, length] : token_rows_) {
      probed.tokens.push_back({row, token_projection_.narrow(1, first, length).permute({2, 1, 0}).contiguous().cpu(),
                               token_norm_.narrow(1, first, length).t().contiguous().cpu()});
      first += length;
    }
    return probed;
  }

 private:
  bool is_root() const { return decoder_.comm().rank() == 0; }
  int64_t layers() const { return decoder_.config().num_layers(); }
  at::Tensor Empty(at::IntArrayRef shape) const { return at::empty(shape, at::device(decoder_.device()).dtype(at::kFloat)); }

  void Project(const at::Tensor& x, int64_t layer, at::Tensor& onto) const {
    onto.select(0, layer).copy_(at::mm(x.to(at::kFloat), basis_DK_));
  }
  static void Measure(const at::Tensor& x, int64_t layer, at::Tensor& norm) {
    norm.select(0, layer).copy_(at::norm(x.to(at::kFloat), 2, {1}));
  }

  void Observe(int64_t layer, const at::Tensor& x) {
    const at::Tensor last = layer == layers() ? x : x.index_select(0, read_);
    Project(last, layer, projection_);
    Measure(last, layer, norm_);
    if (layer == layers() || wanted_.empty()) return;
    const at::Tensor tokens = x.index_select(0, wanted_index_);
    Project(tokens, layer, token_projection_);
    Measure(tokens, layer, token_norm_);
  }

  // In the last block the rows are those that are read.
  at::Tensor OfRead(const at::Tensor& x, int64_t layer) const {
    return (layer + 1 == layers() ? x : x.index_select(0, read_)).to(at::kFloat);
  }

  void ObserveWrite(const model::BlockWrite& write) {
    if (is_root()) Project(OfRead(write.write, write.layer), write.layer, write.is_attention ? attention_ : mlp_);
    if (!write.is_attention) return;
    const HeadVectors& vectors = vectors_[static_cast<size_t>(write.layer)];
    const at::Tensor given = OfRead(write.heads, write.layer).view({rows_, 1, heads_.size(), vectors.along.size(2)});
    at::Tensor part = (given * vectors.along.unsqueeze(0)).sum(3);  // [rows, K, heads of this rank]
    if (vectors.is_normalized) {
      const at::Tensor square = OfRead(write.product, write.layer).square().mean(1);
      part.mul_(at::rsqrt(square + decoder_.config().norm.eps).view({rows_, 1, 1}));
    }
    part_of_heads_.select(0, write.layer).narrow(2, heads_.begin, heads_.size()).copy_(part);
  }

  const model::Decoder& decoder_;
  const at::Tensor& basis_DK_;
  const std::vector<HeadVectors>& vectors_;
  sharding::Range heads_;
  int64_t rows_;
  at::Tensor read_;
  std::vector<int64_t> wanted_;  // Tokens of the rows that are probed token by token.
  at::Tensor wanted_index_;
  std::vector<std::pair<size_t, int64_t>> token_rows_;  // Row, its tokens.
  at::Tensor projection_, norm_, attention_, mlp_;      // Layer first: [L + 1 or L, N, K].
  at::Tensor part_of_heads_;                            // [L, N, K, H]
  at::Tensor token_projection_, token_norm_;            // [L, T of all wanted, K], [L, T]
};

}  // namespace

int64_t Prober::num_directions() const { return basis_DK_.size(1); }

absl::StatusOr<Prober> Prober::Make(model::Decoder& decoder, const sharding::CheckpointReader& reader,
                                    const sharding::ShardPlan& plan, const at::Tensor& basis_KD) {
  const int rank = decoder.comm().rank();
  Prober prober(decoder, plan.ranks[static_cast<size_t>(rank)].heads);
  const at::Tensor basis = basis_KD.to(at::kFloat).contiguous();
  prober.basis_DK_ = basis.t().contiguous().to(decoder.device());
  const model::WeightLoader loader(reader, plan, rank, decoder.dtype(), decoder.gemm_path(), at::kCPU);
  const auto load = [&]() -> absl::Status {
    for (int64_t l = 0; l < prober.num_layers(); ++l) {
      BEARING_ASSIGN_OR_RETURN(const model::WeightLoader::AttentionOut out, loader.LoadAttentionOut(l));
      HeadVectors layer;
      layer.is_normalized = out.post_norm.gain_D.defined();
      const at::Tensor written = layer.is_normalized ? basis * out.post_norm.gain_D.unsqueeze(0) : basis;
      const int64_t head_dim = decoder.config().layers[static_cast<size_t>(l)].attention.head_dim;
      layer.along =
          at::mm(written, out.weight).view({basis.size(0), prober.heads_.size(), head_dim}).contiguous().to(decoder.device());
      prober.layers_.push_back(std::move(layer));
    }
    return absl::OkStatus();
  };
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(decoder.comm(), load()));
  return prober;
}

absl::Status Prober::Run(const Rows& rows, size_t token_rows, int64_t budget,
                         const std::function<absl::Status(const ProbedBatch&)>& sink) const {
  const model::Decoder& decoder = *decoder_;
  const RowBatcher batcher(decoder.config(), rows, /*keep=*/1);
  // The heads' numbers of a batch stay small, however short its rows are.
  const int64_t numbers_a_row = num_layers() * num_directions() * num_heads();
  const auto max_rows = static_cast<size_t>(std::max<int64_t>(1, kHeadNumbers / numbers_a_row));
  for (const RowRange range : batcher.Cut(budget, max_rows)) {
    PackedBatch batch;
    std::vector<int> segments;
    std::vector<int64_t> read;
    batcher.AppendGroup(range, model::Intervention(), batch, segments, read);
    BatchProbe probe(decoder, basis_DK_, layers_, heads_, read);
    for (size_t r = range.begin; r < std::min(range.end, token_rows); ++r) {
      probe.WantTokens(r, TokensOfRow(batch, segments[r - range.begin]));
    }
    BEARING_RETURN_IF_ERROR(decoder_->Run(batch, read, probe.Options()).status());
    BEARING_ASSIGN_OR_RETURN(ProbedBatch probed, probe.Take());
    probed.range = range;
    BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(decoder.comm(), sink(probed)));
  }
  return absl::OkStatus();
}

}  // namespace bearing::steer
