// The elementwise kernels of the forward pass on the CPU, each one pass over its data. float32 and bfloat16 tensors; arithmetic
// in fp32. Compiled for several instruction sets and chosen at load by the processor. Rows are cut over the OpenMP threads.
// Letters of shapes: T tokens, D d_model, H heads, E head_dim, F columns of the MLP.
#ifndef BEARING_WORKER_MODEL_KERNELS_H_
#define BEARING_WORKER_MODEL_KERNELS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/types/span.h"

namespace bearing::model {

// y = cast(x / sqrt(mean(x^2) + eps)) * w, the multiplication in the type of x (as transformers' Llama does). x [T, D], w [D].
at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight_D, double eps);

// Rotates the first `num_heads` heads of each row of x_TC in place: columns [column, column + num_heads * head_dim). cos and
// sin are [positions, E/2] fp32; `positions` [T] picks the row. Half-split layout.
void ApplyRope(at::Tensor& x_TC, int64_t column, int64_t num_heads, int64_t head_dim, const at::Tensor& cos,
               const at::Tensor& sin, absl::Span<const int32_t> positions);

// gate = silu(gate) * up, where gate_up is [T, 2F] (gate in the first F columns); returns [T, F].
at::Tensor SiluMultiply(const at::Tensor& gate_up);

// x += write for the rows [begin, end).
void AddRows(at::Tensor& x_TD, const at::Tensor& write_TD, int64_t begin, int64_t end);

// x += write - sum_k (write . r_k) r_k for the rows [begin, end); basis [K, D] fp32, orthonormal.
void AddProjectedRows(at::Tensor& x_TD, const at::Tensor& write_TD, int64_t begin, int64_t end, const at::Tensor& basis_KD);

// x += vector for the rows [begin, end); vector [D] fp32.
void AddVectorRows(at::Tensor& x_TD, int64_t begin, int64_t end, const at::Tensor& vector_D);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_KERNELS_H_
