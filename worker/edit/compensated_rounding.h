// Rounds edited values to the grid of a quantized format without bringing back what the edit took out.
//
// The values of a quantized weight lie on a coarse grid, and an edit moves most of them by less than half a step: rounded to
// nearest, they fall back to where they were, and the direction with them (measured on random weights of d = 2816: 28 % of it
// with E4M3, 91 % with E2M1). So every written vector w (a column) is rounded as Q(w - sum_k m_k b_k), with m such that the
// error Q - w has as nearly as can be nothing along any b_k. Of all roundings without error along b these are the ones with the
// least squared error: m is the Lagrange multiplier of that condition. For one k the error's part along b_k falls as m_k grows,
// so that m_k is found by bisection; several directions take turns.
//
// Pure functions, thread-safe.
#ifndef BEARING_WORKER_EDIT_COMPENSATED_ROUNDING_H_
#define BEARING_WORKER_EDIT_COMPENSATED_ROUNDING_H_

#include <cstdint>
#include <vector>

#include "worker/edit/projection.h"

namespace bearing::edit {

// The numbers that a value can be, before its scale (float8.h).
enum class Grid { kE4M3, kE2M1 };

inline constexpr int64_t kStripColumns = 32;

// Neighbouring columns of a [d, columns] matrix that share the scales of their rows. Fewer columns are filled up with zeros.
struct Strip {
  explicit Strip(int64_t d) : values(static_cast<size_t>(d * kStripColumns)), scales(static_cast<size_t>(d), 1.0f) {}

  float* row(int64_t i) { return values.data() + i * kStripColumns; }
  const float* row(int64_t i) const { return values.data() + i * kStripColumns; }

  std::vector<float> values;  // [d, kStripColumns]: what is to be stored, exactly.
  std::vector<float> scales;  // [d], above 0: a stored number times this is its value.
};

// m, [basis.count, kStripColumns].
std::vector<float> FindShift(const Basis& basis, Grid grid, const Strip& strip);

// values -= sum_k b_k m_k in rows [first_row, first_row + rows) of a [d, columns] matrix; m is [count, columns].
void SubtractShift(const Basis& basis, const std::vector<float>& shift, int64_t first_row, int64_t rows, int64_t columns,
                   float* values);

// The exponent (bias 127) of the scale of 32 numbers in MXFP4: of the smallest that reaches the largest number and the next
// below it, which cuts that one off at 6, the one with the smaller squared error. `otherwise` when all are 0.
uint8_t ChooseMxfp4Scale(const float* values, uint8_t otherwise);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_COMPENSATED_ROUNDING_H_
