// What is done to the residual stream of a group of rows during a forward pass. An intervention is data: because each group of
// a batch carries its own, many candidate directions share one forward.
#ifndef BEARING_WORKER_MODEL_INTERVENTION_H_
#define BEARING_WORKER_MODEL_INTERVENTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace bearing::model {

enum class Writer { kEmbedding, kAttention, kMlp };

// One of the 1 + 2 L writes to the residual stream, L layers.
struct WriteSite {
  Writer writer = Writer::kEmbedding;
  int64_t layer = 0;  // The embedding counts with layer 0.

  // In the order of the forward pass: the embedding, then attention and MLP of each block.
  int64_t index() const { return writer == Writer::kEmbedding ? 0 : 1 + 2 * layer + (writer == Writer::kMlp ? 1 : 0); }
};

struct Intervention {
  // Directional ablation: every write to the residual stream (embedding, attention out, MLP out; every layer, every token)
  // loses its component along each row: c <- c - s sum_k (c . r_k) r_k. [K, d_model] fp32, orthonormal rows, or [L, K, d_model]
  // where they differ by the layer that writes; undefined = none.
  at::Tensor ablate_basis;

  // s of each write by WriteSite::index(), as the edit defines it (docs/edit.md, "Strengths"): 1 removes all, 0 leaves the
  // write alone, above 1 reverses it. [1 + 2 L] fp32 in host memory; undefined = 1 everywhere.
  at::Tensor strengths;

  // Addition: x <- x + add at the input of block `add_layer`, every token. [d_model] fp32; undefined = none.
  at::Tensor add;
  int64_t add_layer = -1;

  bool ablates_by_layer() const { return ablate_basis.defined() && ablate_basis.dim() == 3; }
  // Vectors that are taken out: K.
  int64_t num_vectors() const { return ablate_basis.defined() ? ablate_basis.size(-2) : 0; }
  float StrengthAt(const WriteSite& site) const {
    return strengths.defined() ? strengths.const_data_ptr<float>()[site.index()] : 1.0F;
  }
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_INTERVENTION_H_
