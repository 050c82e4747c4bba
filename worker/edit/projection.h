// The arithmetic of the edit on rows as they are stored: what a weight has along some directions is taken out of it, in place.
//
// A basis B holds k orthonormal vectors of d = d_model elements. With strength s every vector w that the weight writes becomes
// w' = w - s * sum_k (w . b_k) b_k, and, where norms are preserved, w' * |w| / |w'|. Such vectors are the columns of a [d, in]
// matrix or the rows of an [n, d] one. 16-bit values are computed in fp32 with sums in fp64, F32 values in fp64; each is
// rounded once, to nearest even.
//
// Compiled for several instruction sets, chosen at load by the processor. Pure functions, thread-safe.
#ifndef BEARING_WORKER_EDIT_PROJECTION_H_
#define BEARING_WORKER_EDIT_PROJECTION_H_

#include <cstdint>
#include <vector>

#include "sharding/dtype.h"

namespace bearing::edit {

struct Basis {
  int64_t d = 0;
  int64_t count = 0;
  std::vector<double> vectors;  // [count, d], orthonormal.

  const double* vector(int64_t k) const { return vectors.data() + k * d; }
};

struct Removal {
  const Basis* basis = nullptr;
  double strength = 1.0;
  bool preserve_norms = false;
  const std::vector<double>* add = nullptr;  // [d], added to every row of an [n, d] matrix behind the removal; or nullptr.
};

// A written vector of which less than this share of its square is left keeps what is left: nothing to scale up.
inline constexpr double kSmallestShareLeft = 1e-4;

// What must be known of all rows of a [d, in] matrix before any can change.
struct ColumnSums {
  ColumnSums(int64_t count, int64_t columns)
      : dots(static_cast<size_t>(count * columns)), squares(static_cast<size_t>(columns)) {}
  std::vector<double> dots;     // [count, columns]: b_k . w_c
  std::vector<double> squares;  // [columns]: |w_c|^2
};

// Adds rows [first_row, first_row + rows) of a [d, columns] matrix.
void SumColumns(const Basis& basis, sharding::DType dtype, const char* values, int64_t first_row, int64_t rows, int64_t columns,
                ColumnSums* sums);

// Changes the same rows, once the sums are complete.
void RemoveFromColumns(const Removal& removal, const ColumnSums& sums, sharding::DType dtype, char* values, int64_t first_row,
                       int64_t rows, int64_t columns);

// Changes rows of an [n, d] matrix.
void RemoveFromRows(const Removal& removal, sharding::DType dtype, char* values, int64_t rows);

// Sums over rows of an [n, d] matrix: dots along the basis (all k) and values, squared.
struct SquareSums {
  double along = 0;
  double all = 0;
};
SquareSums SumRows(const Basis& basis, sharding::DType dtype, const char* values, int64_t rows);

// Stored values as fp32 and back (rounded once).
void Decode(sharding::DType dtype, const char* values, int64_t n, float* out);
void Encode(sharding::DType dtype, const float* values, int64_t n, char* out);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_PROJECTION_H_
