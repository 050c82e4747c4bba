// What is done to the residual stream of a group of rows during a forward pass. An intervention is data: because each group of
// a batch carries its own, many candidate directions share one forward.
#ifndef BEARING_WORKER_MODEL_INTERVENTION_H_
#define BEARING_WORKER_MODEL_INTERVENTION_H_

#include <ATen/core/Tensor.h>

namespace bearing::model {

struct Intervention {
  // Directional ablation: every write to the residual stream (embedding, attention out, MLP out; every layer, every token)
  // loses its component along each row: c <- c - sum_k (c . r_k) r_k. [K, d_model] fp32, orthonormal rows; undefined = none.
  at::Tensor ablate_basis;

  // Addition: x <- x + add at the input of block `add_layer`, every token. [d_model] fp32; undefined = none.
  at::Tensor add;
  int64_t add_layer = -1;
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_INTERVENTION_H_
