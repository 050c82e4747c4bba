// What a block of the decoder does besides its products and collectives. There are two implementations, and a decoder takes one
// when it is loaded: own kernels, which work in host memory (cpu_ops.cc), and operations of ATen, which work on any device
// (aten_ops.cc). The latter start a fixed number of operations whatever the number of groups and rows, and never wait for the
// device, except once in a mixture of experts.
//
// Tensors are float32 or bfloat16 and on the decoder's device. All functions are thread-safe, but two threads must not share a
// view. Letters of shapes: T tokens of the batch, N tokens that are read, D d_model, C columns.
#ifndef BEARING_WORKER_MODEL_OPS_H_
#define BEARING_WORKER_MODEL_OPS_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>

#include "sharding/model_config.h"
#include "sharding/shard_plan.h"
#include "worker/model/attention.h"
#include "worker/model/batch_view.h"
#include "worker/model/kernels.h"
#include "worker/model/packed_batch.h"
#include "worker/model/rope.h"

namespace bearing::model {

// Which rows x has: one for each token, or (behind the last block's attention) for each token that is read.
enum class Tokens { kAll, kRead };

// An expert of a mixture: [n, D] -> [n, D].
using Expert = std::function<at::Tensor(int64_t expert, const at::Tensor& x_ND)>;

class Ops {
 public:
  virtual ~Ops() = default;

  // Brings what the functions below need of a batch to `device`. Once for each view, before any of them.
  virtual void Prepare(const PackedBatch& batch, const at::Device& device, BatchView& view) const = 0;

  // Row (token id - vocab.begin) of `table` for each token with an id in `vocab`, zeros for the others. [T, D] as the table.
  virtual at::Tensor Embed(const at::Tensor& table_VD, const sharding::Range& vocab, const PackedBatch& batch,
                           const BatchView& view) const = 0;

  // x [T, D] of the tokens that are read. [N, D]
  virtual at::Tensor TakeRead(const at::Tensor& x_TD, const BatchView& view) const = 0;

  // y = x / sqrt(mean(x^2) + eps) * gain.
  virtual at::Tensor RmsNorm(const at::Tensor& x_TD, const NormGain& gain, double eps) const = 0;

  // The same for each head by itself, in place: columns [column, column + num_heads * head_dim). gain [head_dim].
  virtual void RmsNormHeads(at::Tensor& x_TC, int64_t column, int64_t num_heads, int64_t head_dim, const NormGain& gain,
                            double eps) const = 0;

  // Rotates the first R elements of the heads in the first columns of x in place, by each token's row of the table.
  virtual void ApplyRope(at::Tensor& x_TC, int64_t num_heads, int64_t head_dim, const RopeTable& table,
                         const BatchView& view) const = 0;

  // Puts the keys and values kv [T, C] of decoded tokens into their slots of a layer's cache.
  virtual void StoreDecoded(const at::Tensor& kv_TC, const BatchView& view, at::Tensor& stored) const = 0;

  // What the tokens' queries (the first columns of queries_TC, any row stride) see. [T or N, heads * head_dim]; sources as for
  // model::Attend.
  virtual at::Tensor Attend(const AttentionShape& shape, const at::Tensor& queries_TC, const BatchView& view, Tokens tokens,
                            const std::array<KeyValues, 2>& sources) const = 0;

  // act(gate) * up, where gate_up is [T, 2F]; [T, F].
  virtual at::Tensor GatedActivation(const at::Tensor& gate_up, sharding::Activation activation) const = 0;

  // sum[t] += sum_k weights[t, k] * expert(chosen[t, k])(x[t]). chosen [T, K] int64, no expert twice in a row; weights [T, K]
  // and sum [T, D] fp32.
  virtual void AddExperts(const at::Tensor& x_TD, const at::Tensor& chosen_TK, const at::Tensor& weights_TK,
                          int64_t num_experts, const Expert& expert, at::Tensor& sum_TD) const = 0;

  // x += write, without the share that the row's group ablates at `site` of the write's component along its basis.
  virtual void AddWrite(at::Tensor& x, const at::Tensor& write, const BatchView& view, Tokens tokens,
                        const WriteSite& site) const = 0;

  // x += the vector that the row's group adds at the input of block `layer`, if it does.
  virtual void AddVectors(at::Tensor& x_TD, int64_t layer, const BatchView& view) const = 0;
};

// Both live as long as the program.
const Ops& CpuOps();
const Ops& AtenOps();

// Those for tensors of the device.
inline const Ops& OpsFor(const at::Device& device) { return device.is_cpu() ? CpuOps() : AtenOps(); }

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_OPS_H_
