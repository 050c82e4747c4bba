#include "worker/edit/tensor_editor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "sharding/concat.h"
#include "sharding/dtype.h"
#include "sharding/status_macros.h"
#include "worker/edit/float8.h"

namespace bearing::edit {
namespace {

using sharding::DType;
using sharding::DTypeSize;

// Read at once where a matrix passes by in blocks.
constexpr int64_t kBlockBytes = 8 << 20;

// Tensors whose sums are kept. Pieces of one tensor are neighbours, so few are in use at a time.
constexpr size_t kMostShared = 16;

void AddPieces(int64_t begin, int64_t end, int64_t unit, std::vector<ByteRange>* pieces) {
  const int64_t step = std::max(unit, kPieceBytes / unit * unit);
  for (; begin < end; begin += step) pieces->push_back({begin, std::min(end, begin + step)});
}

}  // namespace

std::vector<ByteRange> PiecesOf(const TensorEdit& edit, int64_t num_bytes) {
  std::vector<ByteRange> pieces;
  const int64_t row_bytes = edit.columns * DTypeSize(edit.dtype);
  const int64_t matrix_bytes = edit.rows * row_bytes;
  if (num_bytes == 0) return pieces;
  switch (edit.kind) {
    case TensorEdit::Kind::kConstant:
    case TensorEdit::Kind::kFp8Scales:
      pieces.push_back({0, num_bytes});
      break;
    case TensorEdit::Kind::kMxfp4Widened:
    case TensorEdit::Kind::kMxfp4Blocks:
    case TensorEdit::Kind::kMxfp4Scales:
      for (int64_t m = 0; m < edit.matrices; ++m) {
        pieces.push_back({num_bytes / edit.matrices * m, num_bytes / edit.matrices * (m + 1)});
      }
      break;
    case TensorEdit::Kind::kFp8Values:
    case TensorEdit::Kind::kValues:
      if (!edit.by_columns) {
        AddPieces(0, num_bytes, row_bytes, &pieces);
        break;
      }
      for (int64_t m = 0; m < edit.matrices; ++m) {
        if (matrix_bytes <= kWholeMatrixBytes) {
          pieces.push_back({m * matrix_bytes, (m + 1) * matrix_bytes});
        } else {
          AddPieces(m * matrix_bytes, (m + 1) * matrix_bytes, row_bytes, &pieces);
        }
      }
      break;
  }
  return pieces;
}

std::shared_ptr<TensorEditor::Shared> TensorEditor::Share(const TensorEdit& edit, int64_t matrix) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const std::shared_ptr<Shared>& shared : recent_) {
    if (shared->weight == edit.weight && shared->matrix == matrix) return shared;
  }
  if (recent_.size() == kMostShared) recent_.erase(recent_.begin());
  recent_.push_back(std::make_shared<Shared>());
  recent_.back()->weight = edit.weight;
  recent_.back()->matrix = matrix;
  return recent_.back();
}

void TensorEditor::AddError(const std::string& weight, const QuantizationError& error) {
  const std::lock_guard<std::mutex> lock(mutex_);
  errors_[weight].error += error.error;
  errors_[weight].all += error.all;
}

std::map<std::string, QuantizationError> TensorEditor::quantization_errors() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return errors_;
}

absl::Status TensorEditor::Make(const TensorEdit& edit, int64_t begin, absl::Span<char> out) {
  switch (edit.kind) {
    case TensorEdit::Kind::kValues:
      return MakeValues(edit, begin, out);
    case TensorEdit::Kind::kFp8Values:
      return MakeFp8Values(edit, begin, out);
    case TensorEdit::Kind::kFp8Scales:
      return MakeFp8Scales(edit, out);
    case TensorEdit::Kind::kMxfp4Widened:
      return MakeMxfp4Widened(edit, begin, out);
    case TensorEdit::Kind::kMxfp4Blocks:
      return MakeMxfp4Blocks(edit, begin, out);
    case TensorEdit::Kind::kMxfp4Scales:
      return MakeMxfp4Scales(edit, begin, out);
    case TensorEdit::Kind::kConstant: {
      const std::vector<float> values(edit.constant.begin(), edit.constant.end());
      Encode(edit.dtype, values.data(), edit.columns, out.data());
      return absl::OkStatus();
    }
  }
  return absl::InternalError("unknown kind of edit");
}

absl::Status TensorEditor::MakeValues(const TensorEdit& edit, int64_t begin, absl::Span<char> out) {
  const auto at = *source_->Find(edit.weight);
  const int64_t offset = source_->entry(at).file_offset;
  const int64_t row_bytes = edit.columns * DTypeSize(edit.dtype);
  const int64_t rows = static_cast<int64_t>(out.size()) / row_bytes;
  if (!edit.by_columns) {
    BEARING_RETURN_IF_ERROR(source_->Read(at.shard, offset + begin, out));
    RemoveFromRows(edit.removal(), edit.dtype, out.data(), rows);
    return absl::OkStatus();
  }
  const int64_t matrix_bytes = edit.rows * row_bytes;
  const int64_t matrix = begin / matrix_bytes;
  if (static_cast<int64_t>(out.size()) == matrix_bytes) {
    BEARING_RETURN_IF_ERROR(source_->Read(at.shard, offset + begin, out));
    ColumnSums sums(edit.basis->count, edit.columns);
    SumColumns(*edit.basis, edit.dtype, out.data(), 0, rows, edit.columns, &sums);
    RemoveFromColumns(edit.removal(), sums, edit.dtype, out.data(), 0, rows, edit.columns);
    return absl::OkStatus();
  }
  const std::shared_ptr<Shared> shared = Share(edit, matrix);
  {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    if (!shared->sums) {
      ColumnSums sums(edit.basis->count, edit.columns);
      const int64_t block = std::max<int64_t>(1, kBlockBytes / row_bytes);
      std::string bytes(static_cast<size_t>(block * row_bytes), '\0');
      for (int64_t row = 0; row < edit.rows; row += block) {
        const int64_t count = std::min(block, edit.rows - row);
        const absl::Span<char> part(bytes.data(), static_cast<size_t>(count * row_bytes));
        BEARING_RETURN_IF_ERROR(source_->Read(at.shard, offset + matrix * matrix_bytes + row * row_bytes, part));
        SumColumns(*edit.basis, edit.dtype, part.data(), row, count, edit.columns, &sums);
      }
      shared->sums = std::move(sums);
    }
  }
  BEARING_RETURN_IF_ERROR(source_->Read(at.shard, offset + begin, out));
  RemoveFromColumns(edit.removal(), *shared->sums, edit.dtype, out.data(), begin % matrix_bytes / row_bytes, rows,
                    edit.columns);
  return absl::OkStatus();
}

}  // namespace bearing::edit
