// 8- and 4-bit floats of quantized checkpoints. E4M3: 1 sign, 4 exponent (bias 7), 3 mantissa bits, largest 448, no infinity.
// E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. Source: OCP 8-bit Floating Point and Microscaling specifications.
//
// Pure functions, thread-safe.
#ifndef BEARING_WORKER_EDIT_FLOAT8_H_
#define BEARING_WORKER_EDIT_FLOAT8_H_

#include <cstdint>

namespace bearing::edit {

inline constexpr float kLargestE4M3 = 448.0f;

// out = values * scale.
void DecodeE4M3(const uint8_t* values, int64_t n, float scale, float* out);

// Values times `inverse_scale`, rounded to nearest even, at most +-448; NaN stays NaN.
void EncodeE4M3(const float* values, int64_t n, float inverse_scale, uint8_t* out);

// Two values a byte, the low half first, times `inverse_scale`, rounded to nearest even, at most +-6. There is no NaN.
void EncodeE2M1(const float* values, int64_t n, float inverse_scale, uint8_t* out);

// `bytes` with two values each, the low half first, times 2^(scale - 127).
void DecodeMxfp4(const uint8_t* bytes, int64_t num_bytes, uint8_t scale, float* out);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_FLOAT8_H_
