#include "worker/edit/compensated_rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "sharding/multiversion.h"
#include "worker/edit/float8.h"

namespace bearing::edit {
namespace {

// Looks at the error of a strip for one direction, and turns of all directions when there are several.
constexpr int kLooks = 12;
constexpr int kTurns = 6;

// An error along a direction below this share of the column's length is left: 2^-13, what bfloat16 leaves of large matrices.
constexpr float kSmallError = 0x1p-13f;

// To the nearest number of the grid, ties to even, at most the largest; NaN stays NaN.
inline __attribute__((always_inline)) float RoundToGrid(float x, Grid grid) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const float size = std::bit_cast<float>(bits & 0x7fffffff);
  float rounded;
  if (grid == Grid::kE4M3) {
    const uint32_t u = bits & 0x7fffffff;
    const float normal = std::bit_cast<float>((u + 0x7ffff + ((u >> 20) & 1)) & 0xfff00000);
    // Adding 2^14 rounds to multiples of 2^-9, the subnormal numbers.
    const float small = (size + 16384.0f) - 16384.0f;
    rounded = size < 0x1p-6f ? small : normal;
    rounded = rounded > kLargestE4M3 ? kLargestE4M3 : rounded;
  } else {
    // Multiples of 1/2 below 2, of 1 below 4, of 2 up to 6.
    const float halves = (size + 0x1p22f) - 0x1p22f;
    const float ones = (size + 0x1p23f) - 0x1p23f;
    const float twos = (size + 0x1p24f) - 0x1p24f;
    rounded = size < 2.0f ? halves : size < 4.0f ? ones : twos;
    rounded = rounded > 6.0f ? 6.0f : rounded;
  }
  rounded = size != size ? size : rounded;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(rounded) | (bits & 0x80000000));
}

// dots[k] = b_k . (Q(values - sum_j b_j m_j) - values), a column each.
inline __attribute__((always_inline)) void ErrorDots(Grid grid, const Strip& strip, const std::vector<float>& inverse,
                                                     const std::vector<float>& vectors, int64_t count, const float* shift,
                                                     float* dots) {
  const auto d = static_cast<int64_t>(strip.scales.size());
  float error[kStripColumns];
  for (int64_t i = 0; i < count * kStripColumns; ++i) dots[i] = 0;
  for (int64_t i = 0; i < d; ++i) {
    const float* const exact = strip.row(i);
    for (int64_t c = 0; c < kStripColumns; ++c) error[c] = exact[c];
    for (int64_t k = 0; k < count; ++k) {
      const float b = vectors[static_cast<size_t>(k * d + i)];
      const float* const m = shift + k * kStripColumns;
      for (int64_t c = 0; c < kStripColumns; ++c) error[c] -= b * m[c];
    }
    const float scale = strip.scales[static_cast<size_t>(i)];
    const float to_grid = inverse[static_cast<size_t>(i)];
    for (int64_t c = 0; c < kStripColumns; ++c) error[c] = RoundToGrid(error[c] * to_grid, grid) * scale - exact[c];
    for (int64_t k = 0; k < count; ++k) {
      const float b = vectors[static_cast<size_t>(k * d + i)];
      float* const of_k = dots + k * kStripColumns;
      for (int64_t c = 0; c < kStripColumns; ++c) of_k[c] += b * error[c];
    }
  }
}

BEARING_MULTIVERSION void ErrorDotsE4M3(const Strip& strip, const std::vector<float>& inverse,
                                        const std::vector<float>& vectors, int64_t count, const float* shift, float* dots) {
  ErrorDots(Grid::kE4M3, strip, inverse, vectors, count, shift, dots);
}

BEARING_MULTIVERSION void ErrorDotsE2M1(const Strip& strip, const std::vector<float>& inverse,
                                        const std::vector<float>& vectors, int64_t count, const float* shift, float* dots) {
  ErrorDots(Grid::kE2M1, strip, inverse, vectors, count, shift, dots);
}

BEARING_MULTIVERSION float E2M1Error(const float* values, float scale, float inverse) {
  constexpr int64_t kLanes = 8;
  float squares[kLanes] = {};
  for (int64_t i = 0; i < 32; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float error = RoundToGrid(values[i + lane] * inverse, Grid::kE2M1) * scale - values[i + lane];
      squares[lane] += error * error;
    }
  }
  float sum = 0;
  for (const float square : squares) sum += square;
  return sum;
}

// The search of one m_k in each column: first ever longer steps until the error's part along b_k changes its sign, then
// bisection between the two. What came nearest to none is kept.
class Search {
 public:
  Search(float start, float error, float enough)
      : best_(start), best_error_(std::abs(error)), enough_(enough), sign_(error < 0 ? -1.0f : 1.0f), low_(start) {
    step_ = sign_ * std::abs(error);
  }

  bool done() const { return !(best_error_ > enough_); }
  float best() const { return best_; }
  float next() const { return bracketed_ ? (low_ + high_) / 2 : low_ + step_; }

  void Saw(float at, float error) {
    if (std::abs(error) < best_error_) {
      best_ = at;
      best_error_ = std::abs(error);
    }
    if (error * sign_ > 0) {
      low_ = at;
      step_ *= 2;
    } else {
      high_ = at;
      bracketed_ = true;
    }
  }

 private:
  float best_;
  float best_error_;
  float enough_;
  float sign_;
  float low_;
  float high_ = 0;
  float step_ = 0;
  bool bracketed_ = false;
};

}  // namespace

std::vector<float> FindShift(const Basis& basis, Grid grid, const Strip& strip) {
  const int64_t count = basis.count;
  std::vector<float> shift(static_cast<size_t>(count * kStripColumns));
  if (count == 0) return shift;
  std::vector<float> inverse(strip.scales.size()), dots(shift.size());
  for (size_t i = 0; i < inverse.size(); ++i) inverse[i] = 1.0f / strip.scales[i];
  const std::vector<float> vectors(basis.vectors.begin(), basis.vectors.end());
  const auto look = [&] {
    (grid == Grid::kE4M3 ? ErrorDotsE4M3 : ErrorDotsE2M1)(strip, inverse, vectors, count, shift.data(), dots.data());
  };
  std::vector<float> squares(kStripColumns);
  for (int64_t i = 0; i < basis.d; ++i) {
    for (int64_t c = 0; c < kStripColumns; ++c) squares[static_cast<size_t>(c)] += strip.row(i)[c] * strip.row(i)[c];
  }
  look();
  for (int turn = 0; turn < (count > 1 ? kTurns : 1); ++turn) {
    for (int64_t k = 0; k < count; ++k) {
      float* const of_k = shift.data() + k * kStripColumns;
      std::vector<Search> searches;
      for (int64_t c = 0; c < kStripColumns; ++c) {
        searches.emplace_back(of_k[c], dots[static_cast<size_t>(k * kStripColumns + c)],
                              kSmallError * std::sqrt(squares[static_cast<size_t>(c)]));
      }
      const auto done = [](const Search& search) { return search.done(); };
      for (int i = 0; i < kLooks && !std::all_of(searches.begin(), searches.end(), done); ++i) {
        for (size_t c = 0; c < kStripColumns; ++c) of_k[c] = searches[c].done() ? searches[c].best() : searches[c].next();
        look();
        for (size_t c = 0; c < kStripColumns; ++c) searches[c].Saw(of_k[c], dots[static_cast<size_t>(k) * kStripColumns + c]);
      }
      for (size_t c = 0; c < kStripColumns; ++c) of_k[c] = searches[c].best();
      if (count > 1) look();
    }
  }
  return shift;
}

void SubtractShift(const Basis& basis, const std::vector<float>& shift, int64_t first_row, int64_t rows, int64_t columns,
                   float* values) {
  for (int64_t i = 0; i < rows; ++i) {
    float* const row = values + i * columns;
    for (int64_t k = 0; k < basis.count; ++k) {
      const auto b = static_cast<float>(basis.vector(k)[first_row + i]);
      const float* const m = shift.data() + k * columns;
      for (int64_t c = 0; c < columns; ++c) row[c] -= b * m[c];
    }
  }
}

uint8_t ChooseMxfp4Scale(const float* values, uint8_t otherwise) {
  float largest = 0;
  for (int64_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(values[i]));
  if (!(largest > 0)) return otherwise;
  int exponent = 0;
  // 2^exponent is the smallest power of two that is at least largest / 6.
  if (std::frexp(largest / 6.0f, &exponent) == 0.5f) --exponent;
  exponent = std::clamp(exponent, -126, 127);
  const auto error = [&](int e) { return E2M1Error(values, std::ldexp(1.0f, e), std::ldexp(1.0f, -e)); };
  return static_cast<uint8_t>(127 + (error(exponent - 1) < error(exponent) ? exponent - 1 : exponent));
}

}  // namespace bearing::edit
