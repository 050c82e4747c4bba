// Projects the residual stream of prompts on directions, and takes the projection apart by what was written.
//
// For a unit direction r and the last token of a prompt, x_l the residual stream at the input of block l (x_L: of the final
// norm), each write to it adds its own product with r:
//   r . x_L = r . x_0 + sum_l (r . attention_l + r . mlp_l),    x_0: the embedding
//   r . attention_l = sum_h a_lh . (W_lh^T r) + r . b_l,        a_lh [E]: what head h gives the output product W_l = [W_l1 ..
//   W_lH]
// Where the write is normalized (x / rms(x) * g, g the gain), r becomes g * r / rms, rms of the token's write. W_l^T r is one
// vector a layer and direction, made once, so that a head costs E multiplications a prompt and no product of matrices.
//
// Letters of shapes: N prompts, K directions, L layers, H heads of the model, T tokens of a prompt, D d_model.
#ifndef BEARING_WORKER_STEER_PROBE_H_
#define BEARING_WORKER_STEER_PROBE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/decoder.h"
#include "worker/steer/row_batches.h"

namespace bearing::steer {

// All on the host, fp32. Filled on rank 0 of the decoder's group; elsewhere only `range` is.
struct ProbedBatch {
  RowRange range;
  at::Tensor projection;  // [N, K, L + 1]
  at::Tensor norm;        // [N, L + 1]: |x_l|
  at::Tensor attention;   // [N, K, L]
  at::Tensor mlp;         // [N, K, L]
  at::Tensor heads;       // [N, K, L, H]; the bias of the output product is not among them.

  // Of the prompts that are wanted token by token, whole rows, the shared prefix among them.
  struct Tokens {
    size_t row = 0;
    at::Tensor projection;  // [K, T, L]: at the inputs of the blocks.
    at::Tensor norm;        // [T, L]
  };
  std::vector<Tokens> tokens;
};

// How the heads of a layer write along the directions.
struct HeadVectors {
  at::Tensor along;            // [K, H of this rank, E]: W^T r, or W^T (g * r); on the decoder's device.
  bool is_normalized = false;  // The second, and divided by the rms of the token's write.
};

class Prober {
 public:
  // `basis`: directions of unit length, [K, D] fp32. `reader` and `plan` are those of the decoder, which must outlive this.
  // Reads the output product of every attention once more. Collective.
  static absl::StatusOr<Prober> Make(model::Decoder& decoder, const sharding::CheckpointReader& reader,
                                     const sharding::ShardPlan& plan, const at::Tensor& basis_KD);

  // Runs the rows in batches of at most `budget` tokens, in order, and hands each batch to `sink` on every rank; nothing of it
  // is kept. The first `token_rows` rows are probed token by token. Collective.
  absl::Status Run(const Rows& rows, size_t token_rows, int64_t budget,
                   const std::function<absl::Status(const ProbedBatch&)>& sink) const;

  int64_t num_directions() const;
  int64_t num_layers() const { return decoder_->config().num_layers(); }
  int64_t num_heads() const { return decoder_->config().layers.front().attention.num_heads; }

 private:
  Prober(model::Decoder& decoder, sharding::Range heads) : decoder_(&decoder), heads_(heads) {}

  model::Decoder* decoder_;
  sharding::Range heads_;  // Of this rank.
  at::Tensor basis_DK_;    // On the decoder's device.
  std::vector<HeadVectors> layers_;
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_PROBE_H_
