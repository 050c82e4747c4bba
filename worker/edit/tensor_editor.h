// Makes the bytes of edited tensors, piece by piece, from the source's files.
//
// What all rows of a matrix have along the directions must be known before the first of them can change. A matrix that fits in
// a piece is read once; a larger one is read several times, its sums being kept between its pieces. Thread-safe.
#ifndef BEARING_WORKER_EDIT_TENSOR_EDITOR_H_
#define BEARING_WORKER_EDIT_TENSOR_EDITOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/memory_rules.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/projection.h"

namespace bearing::edit {

// Bytes of a tensor that can be made at once.
struct ByteRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// The pieces of an edited tensor, in order: at most kWholeMatrixBytes, mostly kPieceBytes.
inline constexpr int64_t kPieceBytes = sharding::kEditPieceBytes;
inline constexpr int64_t kWholeMatrixBytes = sharding::kEditMatrixBytes;
std::vector<ByteRange> PiecesOf(const TensorEdit& edit, int64_t num_bytes);

// What re-quantization cost: |stored - exact|^2 and |exact|^2.
struct QuantizationError {
  double error = 0;
  double all = 0;
};

class TensorEditor {
 public:
  // `matrix_bytes`: what may be held of a matrix at a time; of a quantized one that is made in pieces.
  explicit TensorEditor(const sharding::WeightFiles* source, int64_t matrix_bytes = kWholeMatrixBytes)
      : source_(source), matrix_bytes_(matrix_bytes) {}

  // Fills `out` with the bytes of the piece [begin, begin + out.size()), which is one of PiecesOf.
  absl::Status Make(const TensorEdit& edit, int64_t begin, absl::Span<char> out);

  // Of the pieces made so far, by weight.
  std::map<std::string, QuantizationError> quantization_errors() const;

 private:
  // What the pieces of a matrix share.
  struct Shared {
    std::string weight;
    int64_t matrix = 0;
    std::mutex mutex;  // Held while the rest is made.
    std::optional<ColumnSums> sums;
    // kFp8
    std::vector<float> scales;        // Of the source, row by row.
    std::vector<float> fresh_scales;  // As they are stored.
    std::vector<float> shift;         // compensated_rounding.h; [basis.count, columns]
  };
  std::shared_ptr<Shared> Share(const TensorEdit& edit, int64_t matrix);
  void AddError(const std::string& weight, const QuantizationError& error);

  absl::Status MakeValues(const TensorEdit& edit, int64_t begin, absl::Span<char> out);

  // tensor_editor_mxfp4.cc
  struct Mxfp4Matrix;
  absl::StatusOr<Mxfp4Matrix> ReadMxfp4(const TensorEdit& edit, int64_t matrix) const;
  absl::Status MakeMxfp4Widened(const TensorEdit& edit, int64_t begin, absl::Span<char> out);
  absl::Status MakeMxfp4Blocks(const TensorEdit& edit, int64_t begin, absl::Span<char> out);
  absl::Status MakeMxfp4Scales(const TensorEdit& edit, int64_t begin, absl::Span<char> out);

  // tensor_editor_fp8.cc. `stored` holds all values of the matrix, or is empty: then they are read.
  absl::StatusOr<std::vector<float>> ReadFp8(const TensorEdit& edit, const Shared& shared, absl::Span<const char> stored,
                                             int64_t row, int64_t rows) const;
  absl::Status FindFp8Scales(const TensorEdit& edit, absl::Span<const char> stored, Shared* shared);
  absl::Status FindFp8Shift(const TensorEdit& edit, absl::Span<const char> stored, Shared* shared);
  absl::Status MakeFp8Values(const TensorEdit& edit, int64_t begin, absl::Span<char> out);
  absl::Status MakeFp8Scales(const TensorEdit& edit, absl::Span<char> out);

  const sharding::WeightFiles* const source_;
  const int64_t matrix_bytes_;
  mutable std::mutex mutex_;  // Guards the two below.
  std::vector<std::shared_ptr<Shared>> recent_;
  std::map<std::string, QuantizationError> errors_;
};

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_TENSOR_EDITOR_H_
