// The forward pass: one decoder for every supported family, tensor parallel over the ranks of a Communicator.
//
// Column-parallel products (qkv, gate and up, unembedding) need no communication; row-parallel ones (attention out, MLP down)
// and the vocabulary-parallel embedding end in one AllReduce each. The residual stream is whole on every rank. All ranks call
// the same functions with the same batches. Not thread-safe.
//
// Letters of shapes: T tokens of the batch, N rows that are read, D d_model, V vocabulary rows of this rank.
#ifndef BEARING_WORKER_MODEL_DECODER_H_
#define BEARING_WORKER_MODEL_DECODER_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/shard_plan.h"
#include "worker/comm/communicator.h"
#include "worker/model/batch_view.h"
#include "worker/model/kv_cache.h"
#include "worker/model/layer_store.h"
#include "worker/model/ops.h"
#include "worker/model/packed_batch.h"
#include "worker/model/rope.h"
#include "worker/model/weight_loader.h"

namespace bearing::model {

struct DecoderOptions {
  at::ScalarType dtype = at::kFloat;  // kFloat or kBFloat16.
  // Unset: ChooseGemmPath of rank 0, for all.
  std::optional<GemmPath> gemm_path;
  Residency residency = Residency::kResident;
  // Operations of ATen on the CPU as well (ops.h): what runs on a device, for tests. Products take the plain path then.
  bool aten_ops = false;
  // Streamed: tokens that go through a layer together at the most, so that their residuals fit.
  int64_t stream_tokens = int64_t{1} << 16;
  // Streamed: told when passes do not fit together and the weights are therefore read so many times for them.
  std::function<void(int64_t parts)> split = [](int64_t) {};
  std::function<void(int64_t done, int64_t total)> progress = [](int64_t, int64_t) {};
};

// Called with the residual stream at the input of block `layer` (num_layers = input of the final norm), before an addition at
// that layer. x is [T, D], except for layer num_layers: [N, D] with the rows that are read.
using ResidualObserver = std::function<void(int64_t layer, const at::Tensor& x)>;

// What the attention or the MLP of a block adds to the residual stream. Rows are tokens, in the last block those that are read.
struct BlockWrite {
  int64_t layer = 0;
  bool is_attention = true;  // Else the MLP.
  at::Tensor heads;          // Attention: what its output product takes, [rows, heads of this rank * head_dim].
  at::Tensor product;        // [rows, D]: summed over the ranks, before the post norm. `write` itself where there is none.
  at::Tensor write;          // [rows, D]: before any ablation.
};
using WriteObserver = std::function<void(const BlockWrite& write)>;

struct RunOptions {
  // Prefill: stores keys and values for decode steps. Decode: segments with a cache_row continue it.
  KvCache* cache = nullptr;
  ResidualObserver observe;     // May be empty.
  WriteObserver observe_write;  // May be empty; costs the memory of what it is shown.
};

// One batch on its way from the embedding, or from a block of another pass, to the final norm.
struct Pass {
  PackedBatch batch;
  std::vector<int64_t> read;  // Tokens whose residual the last block gives, ascending.
  RunOptions options;

  // A branch: an earlier pass of the list, whose tokens this batch repeats whole, and the block at whose input it leaves it.
  // The parent may not be a branch itself, and has no `done` (it runs as far as its branches need).
  int parent = -1;
  int64_t first = 0;

  // Takes the residual stream [N, D] at the input of the final norm. May run collectives.
  std::function<absl::Status(const at::Tensor& x_ND)> done;
};

// How RunPasses shares its work and tells of it.
struct PassControl {
  // Asked once for each pass that comes to an end (has no branches), in the order of PassOrder: does this rank's replica run
  // it? A trunk then goes as far as the branches that are run need. Every rank of the replica must answer alike. Empty = all.
  std::function<absl::StatusOr<bool>(size_t pass)> claim;

  // Called as the work advances (after a pass; in a stream after a layer) with the share of it that is done, 0 to 1, on every
  // rank. A bad status stops.
  std::function<absl::Status(double share)> progress;
};

// The passes that come to an end, in the order in which RunPasses takes them.
std::vector<size_t> PassOrder(absl::Span<const Pass> passes);

// What a pass costs beside others, a trunk left out: tokens times blocks.
double PassCost(const Pass& pass, int64_t num_layers);

class Decoder {
 public:
  // `reader` and `comm` must outlive the decoder. Weights and activations lie on the communicator's device.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const sharding::CheckpointReader& reader,
                                                       const sharding::ShardPlan& plan, comm::Communicator& comm,
                                                       const DecoderOptions& options);

  // One batch through all blocks: the residual stream [N, D] of the tokens in `read` (ascending) at the input of the final
  // norm. The last block computes keys for all tokens, but everything behind them only for those.
  absl::StatusOr<at::Tensor> Run(const PackedBatch& batch, absl::Span<const int64_t> read, const RunOptions& options);

  // Runs every pass to its end. Resident: one after the other, branches where they leave their parent. Streamed: all go through
  // a layer together, so that each layer is read once, or once for every `stream_tokens` tokens.
  absl::Status RunPasses(absl::Span<Pass> passes, const PassControl& control = {});

  // This rank's columns of the logits, fp32. x [N, D] -> [N, V].
  at::Tensor LocalLogits(const at::Tensor& x_ND) const;

  // Empty cache for the rows of a prefill of `batch`: one row for each segment in `segments`.
  KvCache MakeCache(const PackedBatch& batch, absl::Span<const int> segments, int64_t max_new) const;

  const sharding::ModelConfig& config() const { return reader_.config(); }
  const sharding::Range& local_vocab() const { return plan_.ranks[comm_.rank()].vocab; }
  comm::Communicator& comm() const { return comm_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return comm_.device(); }
  Residency residency() const { return layers_->residency(); }
  int64_t stream_tokens() const { return stream_tokens_; }
  // Layers read from disk since the decoder was loaded.
  int64_t layers_read() const { return layers_->layers_read(); }
  GemmPath gemm_path() const { return gemm_path_; }

 private:
  Decoder(const sharding::CheckpointReader& reader, const sharding::ShardPlan& plan, comm::Communicator& comm);

  absl::Status LoadWeights(const DecoderOptions& options);

  // Sums the ranks' parts of a write and adds it to the residual stream, normalized and with the groups' ablations applied.
  // `product`, if given, gets the sum before it is normalized.
  absl::Status AddWrite(const BatchView& view, Tokens tokens, const WriteSite& site, const NormGain& post_norm,
                        at::Tensor& write, at::Tensor& x, at::Tensor* product = nullptr) const;

  // The weights of a layer; in a stream, ranks agree that all have them.
  absl::StatusOr<const LayerWeights*> LayerAt(int64_t layer);

  // The embedding of every token, with the batch's ablations applied. [T, D]
  absl::StatusOr<at::Tensor> Embed(const PackedBatch& batch, const BatchView& view);

  // Where each token stands, on the device.
  absl::StatusOr<BatchView> MakeView(const PackedBatch& batch, absl::Span<const int64_t> read, const KvCache* cache) const;

  // What follows the last block.
  void EndPass(const PackedBatch& batch, const RunOptions& options, const at::Tensor& x) const;

  // A pass that is under way.
  struct Active;
  absl::StatusOr<Active> Start(Pass& pass, const at::Tensor* parent_x);
  absl::Status Finish(Active& active);
  absl::Status RunResident(absl::Span<Pass> passes, const PassControl& control);
  absl::Status RunStreamed(absl::Span<Pass> passes, const PassControl& control);
  absl::Status RunLayerByLayer(absl::Span<Pass> passes, absl::Span<const size_t> chosen,
                               const std::function<absl::Status(int64_t layers)>& progress);

  absl::Status RunBlock(const LayerWeights& weights, const BatchView& view, int64_t layer, const RunOptions& options,
                        at::Tensor& x);
  at::Tensor Attention(const LayerWeights& weights, const BatchView& view, int64_t layer, KvCache* cache,
                       at::Tensor& qkv) const;
  at::Tensor Mlp(const LayerWeights& weights, int64_t layer, const at::Tensor& x) const;

  // The table of a layer's rotation.
  const RopeTable& RopeFor(int rope, int64_t positions) const;

  const sharding::CheckpointReader& reader_;
  sharding::ShardPlan plan_;
  comm::Communicator& comm_;
  at::ScalarType dtype_ = at::kFloat;
  GemmPath gemm_path_ = GemmPath::kPlain;
  const Ops* ops_ = nullptr;
  int64_t stream_tokens_ = 0;
  std::function<void(int64_t)> split_;
  EndWeights ends_;
  std::unique_ptr<LayerStore> layers_;
  mutable std::vector<RopeTable> ropes_;  // As the config's; they grow with the longest sequence seen.
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_DECODER_H_
