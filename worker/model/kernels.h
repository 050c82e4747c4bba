// The elementwise kernels of the forward pass on the CPU, each one pass over its data. float32 and bfloat16 tensors; arithmetic
// in fp32. Compiled for several instruction sets and chosen at load by the processor. Rows are cut over the OpenMP threads.
// Letters of shapes: T tokens, D d_model, H heads, E head_dim, F columns of the MLP.
#ifndef BEARING_WORKER_MODEL_KERNELS_H_
#define BEARING_WORKER_MODEL_KERNELS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/types/span.h"
#include "sharding/model_config.h"

namespace bearing::model {

// What a normalized vector is multiplied with.
struct NormGain {
  at::Tensor gain_D;  // fp32.
  // Llama casts to the type of x before the multiplication, Gemma behind it. In fp32 it is the same.
  bool cast_first = true;
};

// y = x / sqrt(mean(x^2) + eps) * gain. x [T, D].
at::Tensor RmsNorm(const at::Tensor& x_TD, const NormGain& gain, double eps);

// The same for each head by itself, in place: columns [column, column + num_heads * head_dim) of x_TC. gain [E].
void RmsNormHeads(at::Tensor& x_TC, int64_t column, int64_t num_heads, int64_t head_dim, const NormGain& gain, double eps);

// Rotates the first R elements of `num_heads` heads of each row of x_TC in place: heads of `head_dim` columns from `column` on.
// cos and sin are [*, R/2] fp32; `table_rows` [T] picks the row of each token. Half-split layout.
void ApplyRope(at::Tensor& x_TC, int64_t column, int64_t num_heads, int64_t head_dim, const at::Tensor& cos,
               const at::Tensor& sin, absl::Span<const int32_t> table_rows);

// act(gate) * up, where gate_up is [T, 2F] (gate in the first F columns); returns [T, F].
at::Tensor GatedActivation(const at::Tensor& gate_up, sharding::Activation activation);

// out[rows[i]] += weights[i] * y[i]. out [T, D] fp32, y [N, D]; a row may come once only.
void ScatterAddRows(at::Tensor& out_TD, const at::Tensor& y_ND, absl::Span<const int64_t> rows,
                    absl::Span<const float> weights);

// x += write for the rows [begin, end).
void AddRows(at::Tensor& x_TD, const at::Tensor& write_TD, int64_t begin, int64_t end);

// x += write - strength sum_k (write . r_k) r_k for the rows [begin, end); basis [K, D] fp32, orthonormal.
void AddProjectedRows(at::Tensor& x_TD, const at::Tensor& write_TD, int64_t begin, int64_t end, const at::Tensor& basis_KD,
                      float strength = 1);

// x += vector for the rows [begin, end); vector [D] fp32.
void AddVectorRows(at::Tensor& x_TD, int64_t begin, int64_t end, const at::Tensor& vector_D);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_KERNELS_H_
