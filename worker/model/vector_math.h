// What the CPU kernels share: the choice of instruction set, exp, bf16 to fp32. For kernels.cc and attention.cc only.
#ifndef BEARING_WORKER_MODEL_VECTOR_MATH_H_
#define BEARING_WORKER_MODEL_VECTOR_MATH_H_

#include <c10/util/BFloat16.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "sharding/multiversion.h"

namespace bearing::model {

// exp by range reduction to 2^k * p(f): relative error under 2e-7 over the whole range, no branches, so that loops vectorize.
inline float FastExp(float x) {
  // Not fmin and fmax: without -ffinite-math-only they stay calls, and the loop around them scalar.
  x = x > -87.0f ? x : -87.0f;
  x = x < 88.0f ? x : 88.0f;
  const float k = std::nearbyint(x * 1.44269504088896341f);
  const float f = std::fma(k, -1.42860677e-6f, std::fma(k, -0.693145752f, x));
  float p = 1.9875691500e-4f;
  p = std::fma(p, f, 1.3981999507e-3f);
  p = std::fma(p, f, 8.3334519073e-3f);
  p = std::fma(p, f, 4.1665795894e-2f);
  p = std::fma(p, f, 1.6666665459e-1f);
  p = std::fma(p, f, 5.0000001201e-1f);
  p = std::fma(p * f, f, f + 1.0f);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (static_cast<uint32_t>(static_cast<int32_t>(k)) << 23));
}

inline void Widen(const c10::BFloat16* in, float* out, int64_t n) {
  const auto* bits = reinterpret_cast<const uint16_t*>(in);
  for (int64_t i = 0; i < n; ++i) out[i] = std::bit_cast<float>(static_cast<uint32_t>(bits[i]) << 16);
}

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_VECTOR_MATH_H_
