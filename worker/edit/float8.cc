#include "worker/edit/float8.h"

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "sharding/multiversion.h"

namespace bearing::edit {
namespace {

std::array<float, 256> MakeE4M3Table() {
  std::array<float, 256> table;
  for (int code = 0; code < 256; ++code) {
    const int exponent = (code >> 3) & 15;
    const int mantissa = code & 7;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if (exponent == 15 && mantissa == 7) value = std::numeric_limits<float>::quiet_NaN();
    table[static_cast<size_t>(code)] = (code & 128) != 0 ? -value : value;
  }
  return table;
}

const std::array<float, 256> kE4M3 = MakeE4M3Table();
constexpr std::array<float, 16> kE2M1 = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                         -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

}  // namespace

void DecodeE4M3(const uint8_t* values, int64_t n, float scale, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = kE4M3[values[i]] * scale;
}

BEARING_MULTIVERSION void EncodeE4M3(const float* values, int64_t n, float inverse_scale, uint8_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = std::bit_cast<uint32_t>(values[i] * inverse_scale);
    const uint32_t sign = (u >> 24) & 0x80;
    const uint32_t rest = u & 0x7fffffff;
    // Normal numbers: round at the 20th bit, move the exponent's bias from 127 to 7.
    const uint32_t normal = (rest - (uint32_t{120} << 23) + 0x7ffff + ((rest >> 20) & 1)) >> 20;
    // Below 2^-6: adding 2^14 rounds to multiples of 2^-9.
    const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(rest) + 16384.0f) - std::bit_cast<uint32_t>(16384.0f);
    uint32_t code = rest < 0x3c800000 ? small : normal;
    code = rest >= 0x43e00000 ? 0x7e : code;  // 448 and above.
    code = rest > 0x7f800000 ? 0x7f : code;
    out[i] = static_cast<uint8_t>(sign | code);
  }
}

// The bounds lie between neighbours of 0, 0.5, 1, 1.5, 2, 3, 4, 6; one on a bound goes to the even code.
void EncodeE2M1(const float* values, int64_t n, float inverse_scale, uint8_t* out) {
  const auto code = [inverse_scale](float value) -> uint8_t {
    const float x = value * inverse_scale;
    const float size = std::abs(x);
    uint8_t magnitude = 7;
    if (size <= 0.25f) {
      magnitude = 0;
    } else if (size < 0.75f) {
      magnitude = 1;
    } else if (size <= 1.25f) {
      magnitude = 2;
    } else if (size < 1.75f) {
      magnitude = 3;
    } else if (size <= 2.5f) {
      magnitude = 4;
    } else if (size < 3.5f) {
      magnitude = 5;
    } else if (size <= 5.0f) {
      magnitude = 6;
    }
    // By the bit: this file is compiled as if zeros had no sign.
    return static_cast<uint8_t>(magnitude | (std::bit_cast<uint32_t>(value) >> 31 << 3));
  };
  for (int64_t i = 0; i < n / 2; ++i) out[i] = static_cast<uint8_t>(code(values[2 * i]) | code(values[2 * i + 1]) << 4);
}

void DecodeMxfp4(const uint8_t* bytes, int64_t num_bytes, uint8_t scale, float* out) {
  const float factor = std::ldexp(1.0f, static_cast<int>(scale) - 127);
  for (int64_t i = 0; i < num_bytes; ++i) {
    out[2 * i] = kE2M1[bytes[i] & 15] * factor;
    out[2 * i + 1] = kE2M1[bytes[i] >> 4] * factor;
  }
}

}  // namespace bearing::edit
