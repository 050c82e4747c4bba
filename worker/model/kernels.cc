#include "worker/model/kernels.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "worker/model/vector_math.h"

namespace bearing::model {
namespace {

using c10::BFloat16;

// bf16 rows pass through fp32 scratch: a widening shift and a rounding add, both of which vectorize.
inline void Narrow(const float* in, BFloat16* out, int64_t n) {
  auto* bits = reinterpret_cast<uint16_t*>(out);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = std::bit_cast<uint32_t>(in[i]);
    bits[i] = static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
  }
}

BEARING_MULTIVERSION void RmsNormRow(const float* x, const float* w, float eps, bool round_before_weight, int64_t n, float* y) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) {
    float v = x[i] * scale;
    if (round_before_weight) {
      const uint32_t u = std::bit_cast<uint32_t>(v);
      v = std::bit_cast<float>((u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000u);
    }
    y[i] = v * w[i];
  }
}

BEARING_MULTIVERSION void RopeHeads(float* x, int64_t heads, int64_t head_dim, int64_t half, const float* cos,
                                    const float* sin) {
  for (int64_t h = 0; h < heads; ++h) {
    float* a = x + h * head_dim;
    float* b = a + half;
    for (int64_t i = 0; i < half; ++i) {
      const float u = a[i];
      const float v = b[i];
      a[i] = u * cos[i] - v * sin[i];
      b[i] = v * cos[i] + u * sin[i];
    }
  }
}

BEARING_MULTIVERSION void SiluMultiplyRow(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + FastExp(-gate[i])) * up[i];
}

// The tanh form of GELU: x (1 + tanh u) / 2 = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3).
BEARING_MULTIVERSION void GeluTanhMultiplyRow(const float* gate, const float* up, int64_t n, float* out) {
  constexpr float kTwice = 1.5957691216057308f;  // 2 sqrt(2/pi)
  for (int64_t i = 0; i < n; ++i) {
    const float x = gate[i];
    out[i] = x / (1.0f + FastExp(-kTwice * (x + 0.044715f * x * x * x))) * up[i];
  }
}

BEARING_MULTIVERSION void AddRow(float* x, const float* write, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += write[i];
}

BEARING_MULTIVERSION float DotRow(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

BEARING_MULTIVERSION void AddScaledRow(float* x, const float* v, float scale, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += scale * v[i];
}

// Calls body(row, float* x, const float* write or null) with the row in fp32, and stores it back when x is bf16.
template <typename Body>
void ForEachRow(at::Tensor& x_TD, const at::Tensor* write_TD, int64_t begin, int64_t end, const Body& body) {
  const int64_t d = x_TD.size(1);
  if (x_TD.scalar_type() == at::kFloat) {
    float* x = x_TD.data_ptr<float>();
    const float* w = write_TD != nullptr ? write_TD->const_data_ptr<float>() : nullptr;
    at::parallel_for(begin, end, 16, [&](int64_t from, int64_t to) {
      for (int64_t t = from; t < to; ++t) body(x + t * d, w != nullptr ? w + t * d : nullptr, d);
    });
    return;
  }
  BFloat16* x = x_TD.data_ptr<BFloat16>();
  const BFloat16* w = write_TD != nullptr ? write_TD->const_data_ptr<BFloat16>() : nullptr;
  at::parallel_for(begin, end, 16, [&](int64_t from, int64_t to) {
    std::vector<float> scratch(2 * d);
    for (int64_t t = from; t < to; ++t) {
      Widen(x + t * d, scratch.data(), d);
      if (w != nullptr) Widen(w + t * d, scratch.data() + d, d);
      body(scratch.data(), w != nullptr ? scratch.data() + d : nullptr, d);
      Narrow(scratch.data(), x + t * d, d);
    }
  });
}

}  // namespace

namespace {

// Rows of `count` vectors of n elements, each normalized by itself, from x to y; steps in elements.
void NormRows(const at::Tensor& x, int64_t x_column, int64_t x_step, at::Tensor& y, int64_t y_column, int64_t y_step,
              int64_t rows, int64_t count, int64_t n, const NormGain& gain, double eps) {
  const float* weight = gain.gain_D.const_data_ptr<float>();
  const auto e = static_cast<float>(eps);
  const bool narrow = x.scalar_type() == at::kBFloat16;
  at::parallel_for(0, rows, 16, [&](int64_t from, int64_t to) {
    std::vector<float> scratch(narrow ? 2 * n : 0);
    for (int64_t t = from; t < to; ++t) {
      for (int64_t h = 0; h < count; ++h) {
        const int64_t in = t * x_step + x_column + h * n;
        const int64_t out = t * y_step + y_column + h * n;
        if (!narrow) {
          RmsNormRow(x.const_data_ptr<float>() + in, weight, e, false, n, y.data_ptr<float>() + out);
        } else {
          Widen(x.const_data_ptr<BFloat16>() + in, scratch.data(), n);
          RmsNormRow(scratch.data(), weight, e, gain.cast_first, n, scratch.data() + n);
          Narrow(scratch.data() + n, y.data_ptr<BFloat16>() + out, n);
        }
      }
    }
  });
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x_TD, const NormGain& gain, double eps) {
  const int64_t d = x_TD.size(1);
  at::Tensor y = at::empty_like(x_TD);
  NormRows(x_TD, 0, d, y, 0, d, x_TD.size(0), 1, d, gain, eps);
  return y;
}

void RmsNormHeads(at::Tensor& x_TC, int64_t column, int64_t num_heads, int64_t head_dim, const NormGain& gain, double eps) {
  const int64_t step = x_TC.stride(0);
  NormRows(x_TC, column, step, x_TC, column, step, x_TC.size(0), num_heads, head_dim, gain, eps);
}

void ApplyRope(at::Tensor& x_TC, int64_t column, int64_t num_heads, int64_t head_dim, const at::Tensor& cos,
               const at::Tensor& sin, absl::Span<const int32_t> table_rows) {
  const int64_t rows = x_TC.size(0);
  const int64_t stride = x_TC.stride(0);
  const int64_t half = cos.size(1);
  const int64_t width = num_heads * head_dim;
  const float* c = cos.const_data_ptr<float>();
  const float* s = sin.const_data_ptr<float>();
  const bool narrow = x_TC.scalar_type() == at::kBFloat16;
  at::parallel_for(0, rows, 16, [&](int64_t from, int64_t to) {
    std::vector<float> scratch(narrow ? width : 0);
    for (int64_t t = from; t < to; ++t) {
      const float* ct = c + table_rows[t] * half;
      const float* st = s + table_rows[t] * half;
      if (!narrow) {
        RopeHeads(x_TC.data_ptr<float>() + t * stride + column, num_heads, head_dim, half, ct, st);
      } else {
        BFloat16* x = x_TC.data_ptr<BFloat16>() + t * stride + column;
        Widen(x, scratch.data(), width);
        RopeHeads(scratch.data(), num_heads, head_dim, half, ct, st);
        Narrow(scratch.data(), x, width);
      }
    }
  });
}

at::Tensor GatedActivation(const at::Tensor& gate_up, sharding::Activation activation) {
  const int64_t rows = gate_up.size(0);
  const int64_t f = gate_up.size(1) / 2;
  auto* const multiply = activation == sharding::Activation::kSilu ? SiluMultiplyRow : GeluTanhMultiplyRow;
  at::Tensor out = at::empty({rows, f}, gate_up.options());
  const bool narrow = gate_up.scalar_type() == at::kBFloat16;
  at::parallel_for(0, rows, 8, [&](int64_t from, int64_t to) {
    std::vector<float> scratch(narrow ? 3 * f : 0);
    for (int64_t t = from; t < to; ++t) {
      if (!narrow) {
        const float* gate = gate_up.const_data_ptr<float>() + t * 2 * f;
        multiply(gate, gate + f, f, out.data_ptr<float>() + t * f);
      } else {
        Widen(gate_up.const_data_ptr<BFloat16>() + t * 2 * f, scratch.data(), 2 * f);
        multiply(scratch.data(), scratch.data() + f, f, scratch.data() + 2 * f);
        Narrow(scratch.data() + 2 * f, out.data_ptr<BFloat16>() + t * f, f);
      }
    }
  });
  return out;
}

void ScatterAddRows(at::Tensor& out_TD, const at::Tensor& y_ND, absl::Span<const int64_t> rows,
                    absl::Span<const float> weights) {
  const int64_t d = out_TD.size(1);
  float* out = out_TD.data_ptr<float>();
  const bool narrow = y_ND.scalar_type() == at::kBFloat16;
  at::parallel_for(0, static_cast<int64_t>(rows.size()), 16, [&](int64_t from, int64_t to) {
    std::vector<float> scratch(narrow ? d : 0);
    for (int64_t i = from; i < to; ++i) {
      if (narrow) Widen(y_ND.const_data_ptr<BFloat16>() + i * d, scratch.data(), d);
      const float* y = narrow ? scratch.data() : y_ND.const_data_ptr<float>() + i * d;
      AddScaledRow(out + rows[i] * d, y, weights[i], d);
    }
  });
}

void AddRows(at::Tensor& x_TD, const at::Tensor& write_TD, int64_t begin, int64_t end) {
  ForEachRow(x_TD, &write_TD, begin, end, [](float* x, const float* write, int64_t d) { AddRow(x, write, d); });
}

void AddProjectedRows(at::Tensor& x_TD, const at::Tensor& write_TD, int64_t begin, int64_t end, const at::Tensor& basis_KD,
                      float strength) {
  const float* basis = basis_KD.const_data_ptr<float>();
  const int64_t k = basis_KD.size(0);
  ForEachRow(x_TD, &write_TD, begin, end, [basis, k, strength](float* x, const float* write, int64_t d) {
    AddRow(x, write, d);
    for (int64_t i = 0; i < k; ++i) AddScaledRow(x, basis + i * d, -strength * DotRow(write, basis + i * d, d), d);
  });
}

void AddVectorRows(at::Tensor& x_TD, int64_t begin, int64_t end, const at::Tensor& vector_D) {
  const float* vector = vector_D.const_data_ptr<float>();
  ForEachRow(x_TD, nullptr, begin, end, [vector](float* x, const float*, int64_t d) { AddRow(x, vector, d); });
}

}  // namespace bearing::model
