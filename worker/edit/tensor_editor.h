// Makes the bytes of edited tensors, piece by piece, from the source's files.
//
// What all rows of a matrix have along the directions must be known before the first of them can change. A matrix that fits in
// a piece is read once; a larger one is read twice, its sums being kept between its pieces. Thread-safe.
#ifndef BEARING_WORKER_EDIT_TENSOR_EDITOR_H_
#define BEARING_WORKER_EDIT_TENSOR_EDITOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/memory_rules.h"
#include "worker/edit/edit_plan.h"

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
  explicit TensorEditor(const sharding::WeightFiles* source) : source_(source) {}

  // Fills `out` with the bytes of the piece [begin, begin + out.size()), which is one of PiecesOf.
  absl::Status Make(const TensorEdit& edit, int64_t begin, absl::Span<char> out);

  // Of the pieces made so far, by weight.
  std::map<std::string, QuantizationError> quantization_errors() const;

 private:
  struct Shared;  // What the pieces of a tensor share.
  std::shared_ptr<Shared> Share(const TensorEdit& edit, int64_t matrix);

  absl::Status MakeValues(const TensorEdit& edit, int64_t begin, absl::Span<char> out);
  absl::Status MakeMxfp4(const TensorEdit& edit, int64_t begin, absl::Span<char> out);
  absl::Status PrepareFp8(const TensorEdit& edit, Shared* shared);
  absl::Status MakeFp8Values(const TensorEdit& edit, int64_t begin, absl::Span<char> out);
  absl::Status MakeFp8Scales(const TensorEdit& edit, absl::Span<char> out);
  absl::StatusOr<std::vector<float>> ReadFp8(const TensorEdit& edit, const std::vector<float>& scales, int64_t row,
                                             int64_t rows) const;

  const sharding::WeightFiles* const source_;
  mutable std::mutex mutex_;  // Guards the two below.
  std::vector<std::shared_ptr<Shared>> recent_;
  std::map<std::string, QuantizationError> errors_;
};

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_TENSOR_EDITOR_H_
