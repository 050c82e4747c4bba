#include "worker/edit/projection.h"

#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "sharding/multiversion.h"

namespace bearing::edit {
namespace {

using sharding::DType;

// Rows whose products are added in fp32 before they go to the fp64 sums.
constexpr int64_t kRowsInFloat = 32;

BEARING_MULTIVERSION void AddScaled(const float* x, float a, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

BEARING_MULTIVERSION void AddScaled(const double* x, double a, int64_t n, double* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

BEARING_MULTIVERSION void AddSquares(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i] * x[i];
}

BEARING_MULTIVERSION void AddSquares(const double* x, int64_t n, double* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i] * x[i];
}

BEARING_MULTIVERSION void Multiply(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] *= x[i];
}

BEARING_MULTIVERSION void Multiply(const double* x, int64_t n, double* y) {
  for (int64_t i = 0; i < n; ++i) y[i] *= x[i];
}

BEARING_MULTIVERSION float Dot(const float* x, const float* y, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

BEARING_MULTIVERSION double Dot(const double* x, const double* y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

BEARING_MULTIVERSION void MoveSums(float* from, int64_t n, double* to) {
  for (int64_t i = 0; i < n; ++i) {
    to[i] += static_cast<double>(from[i]);
    from[i] = 0;
  }
}

void MoveSums(double* from, int64_t n, double* to) {
  AddScaled(from, 1.0, n, to);
  std::fill(from, from + n, 0.0);
}

BEARING_MULTIVERSION void WidenBf16(const uint16_t* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = std::bit_cast<float>(static_cast<uint32_t>(in[i]) << 16);
}

BEARING_MULTIVERSION void NarrowBf16(const float* in, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = std::bit_cast<uint32_t>(in[i]);
    const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    const uint32_t quiet = (u >> 16) | 0x40;  // A NaN must not round to a number.
    out[i] = static_cast<uint16_t>((u & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
  }
}

BEARING_MULTIVERSION void WidenFloat(const float* in, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<double>(in[i]);
}

BEARING_MULTIVERSION void NarrowDouble(const double* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i]);
}

// Half precision by hand, for processors without F16C. Exact, subnormals included: a half with its exponent moved is the value
// times 2^-112.
void WidenF16Plain(const uint16_t* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t sign = static_cast<uint32_t>(in[i] & 0x8000) << 16;
    const uint32_t rest = static_cast<uint32_t>(in[i] & 0x7fff) << 13;
    const bool special = (in[i] & 0x7c00) == 0x7c00;
    const uint32_t scaled = std::bit_cast<uint32_t>(std::bit_cast<float>(rest) * 0x1p112f);
    out[i] = std::bit_cast<float>(sign | (special ? rest | 0x7f800000 : scaled));
  }
}

void NarrowF16Plain(const float* in, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = std::bit_cast<uint32_t>(in[i]);
    const uint32_t sign = (u >> 16) & 0x8000;
    const uint32_t rest = u & 0x7fffffff;
    uint32_t half;
    if (rest > 0x7f800000) {
      half = 0x7e00;
    } else if (rest >= 0x477ff000) {
      half = 0x7c00;  // Rounds to infinity.
    } else if (rest < 0x38800000) {
      // Subnormal: adding a power of two rounds to its last bit.
      half = std::bit_cast<uint32_t>(std::bit_cast<float>(rest) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    } else {
      half = (rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13;
    }
    out[i] = static_cast<uint16_t>(sign | half);
  }
}

__attribute__((target("avx,f16c"))) void WidenF16Fast(const uint16_t* in, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  }
  WidenF16Plain(in + i, n - i, out + i);
}

__attribute__((target("avx,f16c"))) void NarrowF16Fast(const float* in, int64_t n, uint16_t* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  }
  NarrowF16Plain(in + i, n - i, out + i);
}

// Clang 14's __builtin_cpu_supports does not know the name.
bool HasF16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

const bool kHasF16c = HasF16c() && __builtin_cpu_supports("avx");

// Stored values as what they are computed in.
void Widen(DType dtype, const char* in, int64_t n, float* out) {
  const auto* bits = reinterpret_cast<const uint16_t*>(in);
  if (dtype == DType::kBF16) return WidenBf16(bits, n, out);
  if (dtype == DType::kF16) return kHasF16c ? WidenF16Fast(bits, n, out) : WidenF16Plain(bits, n, out);
  std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float));
}

void Narrow(DType dtype, const float* in, int64_t n, char* out) {
  auto* bits = reinterpret_cast<uint16_t*>(out);
  if (dtype == DType::kBF16) return NarrowBf16(in, n, bits);
  if (dtype == DType::kF16) return kHasF16c ? NarrowF16Fast(in, n, bits) : NarrowF16Plain(in, n, bits);
  std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float));
}

void Widen(DType, const char* in, int64_t n, double* out) { WidenFloat(reinterpret_cast<const float*>(in), n, out); }
void Narrow(DType, const double* in, int64_t n, char* out) { NarrowDouble(in, n, reinterpret_cast<float*>(out)); }

// |w'|^2 / |w|^2, where `along` is the sum of the squared dots.
double ShareLeft(double strength, double along, double all) {
  return all > 0 ? std::max(0.0, 1.0 - (2 * strength - strength * strength) * along / all) : 1.0;
}

double NormFactor(double strength, double along, double all) {
  const double left = ShareLeft(strength, along, all);
  return left < kSmallestShareLeft ? 1.0 : 1.0 / std::sqrt(left);
}

template <typename Real>
std::vector<Real> As(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

template <typename Real>
void SumColumnsIn(const Basis& basis, DType dtype, const char* values, int64_t first_row, int64_t rows, int64_t columns,
                  ColumnSums* sums) {
  const auto n = static_cast<size_t>(columns);
  std::vector<Real> row(n), squares(n), dots(n * static_cast<size_t>(basis.count));
  const int64_t row_bytes = columns * sharding::DTypeSize(dtype);
  for (int64_t i = 0; i < rows; ++i) {
    Widen(dtype, values + i * row_bytes, columns, row.data());
    for (int64_t k = 0; k < basis.count; ++k) {
      AddScaled(row.data(), static_cast<Real>(basis.vector(k)[first_row + i]), columns, dots.data() + k * columns);
    }
    AddSquares(row.data(), columns, squares.data());
    if ((i + 1) % kRowsInFloat != 0 && i + 1 < rows) continue;
    MoveSums(dots.data(), static_cast<int64_t>(dots.size()), sums->dots.data());
    MoveSums(squares.data(), columns, sums->squares.data());
  }
}

template <typename Real>
void RemoveFromColumnsIn(const Removal& removal, const ColumnSums& sums, DType dtype, char* values, int64_t first_row,
                         int64_t rows, int64_t columns) {
  const Basis& basis = *removal.basis;
  const std::vector<Real> dots = As<Real>(sums.dots);
  std::vector<Real> factor;
  if (removal.preserve_norms) {
    for (int64_t c = 0; c < columns; ++c) {
      double along = 0;
      for (int64_t k = 0; k < basis.count; ++k) {
        const double dot = sums.dots[static_cast<size_t>(k * columns + c)];
        along += dot * dot;
      }
      factor.push_back(static_cast<Real>(NormFactor(removal.strength, along, sums.squares[static_cast<size_t>(c)])));
    }
  }
  std::vector<Real> row(static_cast<size_t>(columns));
  const int64_t row_bytes = columns * sharding::DTypeSize(dtype);
  for (int64_t i = 0; i < rows; ++i) {
    char* const stored = values + i * row_bytes;
    Widen(dtype, stored, columns, row.data());
    for (int64_t k = 0; k < basis.count; ++k) {
      const double along = -removal.strength * basis.vector(k)[first_row + i];
      AddScaled(dots.data() + k * columns, static_cast<Real>(along), columns, row.data());
    }
    if (!factor.empty()) Multiply(factor.data(), columns, row.data());
    Narrow(dtype, row.data(), columns, stored);
  }
}

template <typename Real>
void RemoveFromRowsIn(const Removal& removal, DType dtype, char* values, int64_t rows) {
  const Basis& basis = *removal.basis;
  const int64_t d = basis.d;
  const std::vector<Real> vectors = As<Real>(basis.vectors);
  const std::vector<Real> added = removal.add != nullptr ? As<Real>(*removal.add) : std::vector<Real>();
  std::vector<Real> row(static_cast<size_t>(d)), dots(static_cast<size_t>(basis.count));
  const int64_t row_bytes = d * sharding::DTypeSize(dtype);
  for (int64_t i = 0; i < rows; ++i) {
    char* const stored = values + i * row_bytes;
    Widen(dtype, stored, d, row.data());
    double along = 0;
    for (int64_t k = 0; k < basis.count; ++k) {
      dots[static_cast<size_t>(k)] = Dot(row.data(), vectors.data() + k * d, d);
      along += static_cast<double>(dots[static_cast<size_t>(k)]) * static_cast<double>(dots[static_cast<size_t>(k)]);
    }
    const double all = removal.preserve_norms ? static_cast<double>(Dot(row.data(), row.data(), d)) : 0;
    for (int64_t k = 0; k < basis.count; ++k) {
      AddScaled(vectors.data() + k * d, static_cast<Real>(-removal.strength) * dots[static_cast<size_t>(k)], d, row.data());
    }
    if (removal.preserve_norms) {
      const auto factor = static_cast<Real>(NormFactor(removal.strength, along, all));
      for (Real& value : row) value *= factor;
    }
    if (!added.empty()) AddScaled(added.data(), Real{1}, d, row.data());
    Narrow(dtype, row.data(), d, stored);
  }
}

}  // namespace

void SumColumns(const Basis& basis, DType dtype, const char* values, int64_t first_row, int64_t rows, int64_t columns,
                ColumnSums* sums) {
  if (dtype == DType::kF32) return SumColumnsIn<double>(basis, dtype, values, first_row, rows, columns, sums);
  SumColumnsIn<float>(basis, dtype, values, first_row, rows, columns, sums);
}

void RemoveFromColumns(const Removal& removal, const ColumnSums& sums, DType dtype, char* values, int64_t first_row,
                       int64_t rows, int64_t columns) {
  if (dtype == DType::kF32) return RemoveFromColumnsIn<double>(removal, sums, dtype, values, first_row, rows, columns);
  RemoveFromColumnsIn<float>(removal, sums, dtype, values, first_row, rows, columns);
}

void RemoveFromRows(const Removal& removal, DType dtype, char* values, int64_t rows) {
  if (dtype == DType::kF32) return RemoveFromRowsIn<double>(removal, dtype, values, rows);
  RemoveFromRowsIn<float>(removal, dtype, values, rows);
}

SquareSums SumRows(const Basis& basis, DType dtype, const char* values, int64_t rows) {
  SquareSums sums;
  const std::vector<float> vectors = As<float>(basis.vectors);
  std::vector<float> row(static_cast<size_t>(basis.d));
  std::vector<double> wide(dtype == DType::kF32 ? static_cast<size_t>(basis.d) : 0);
  const int64_t row_bytes = basis.d * sharding::DTypeSize(dtype);
  for (int64_t i = 0; i < rows; ++i) {
    const char* const stored = values + i * row_bytes;
    const bool is_wide = dtype == DType::kF32;
    if (is_wide) {
      Widen(dtype, stored, basis.d, wide.data());
      sums.all += Dot(wide.data(), wide.data(), basis.d);
    } else {
      Widen(dtype, stored, basis.d, row.data());
      sums.all += static_cast<double>(Dot(row.data(), row.data(), basis.d));
    }
    for (int64_t k = 0; k < basis.count; ++k) {
      const double dot = is_wide ? Dot(wide.data(), basis.vector(k), basis.d)
                                 : static_cast<double>(Dot(row.data(), vectors.data() + k * basis.d, basis.d));
      sums.along += dot * dot;
    }
  }
  return sums;
}

void Decode(DType dtype, const char* values, int64_t n, float* out) { Widen(dtype, values, n, out); }
void Encode(DType dtype, const float* values, int64_t n, char* out) { Narrow(dtype, values, n, out); }

}  // namespace bearing::edit
