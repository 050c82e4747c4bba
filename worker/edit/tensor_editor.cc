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

int64_t Blocks(int64_t length, int64_t block) { return (length + block - 1) / block; }

// The smallest scale of a stored type with which `largest` does not leave the range of E4M3.
float ScaleFor(float largest, DType dtype) {
  if (!(largest > 0)) return 1.0f;
  float scale = largest / kLargestE4M3;
  char stored[4];
  for (int i = 0; i < 64; ++i) {
    float rounded = 0;
    Encode(dtype, &scale, 1, stored);
    Decode(dtype, stored, 1, &rounded);
    if (rounded * kLargestE4M3 >= largest && rounded > 0) return rounded;
    scale = std::nextafter(scale * (dtype == DType::kF32 ? 1.0f : 1.002f), std::numeric_limits<float>::infinity());
  }
  return scale;
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
    case TensorEdit::Kind::kFp8Values:
      AddPieces(0, num_bytes,
                std::min(edit.quantized.block_rows, edit.rows) * row_bytes > kWholeMatrixBytes
                    ? row_bytes
                    : std::min(edit.quantized.block_rows, edit.rows) * row_bytes,
                &pieces);
      break;
    case TensorEdit::Kind::kMxfp4:
      for (int64_t m = 0; m < edit.matrices; ++m) pieces.push_back({m * matrix_bytes, (m + 1) * matrix_bytes});
      break;
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

struct TensorEditor::Shared {
  std::string weight;
  int64_t matrix = 0;
  std::mutex mutex;  // Held while the rest is made.
  std::optional<ColumnSums> sums;
  std::vector<float> scales;        // kFp8: of the source, row by row.
  std::vector<float> fresh_scales;  // kFp8
};

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
    case TensorEdit::Kind::kMxfp4:
      return MakeMxfp4(edit, begin, out);
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

// The matrix of an expert on disk is [d_model, in], its transpose is written.
absl::Status TensorEditor::MakeMxfp4(const TensorEdit& edit, int64_t begin, absl::Span<char> out) {
  const int64_t d = edit.columns;
  const int64_t in = edit.rows;
  const int64_t matrix = begin / static_cast<int64_t>(out.size());
  const auto blocks_at = *source_->Find(edit.quantized.values);
  const auto scales_at = *source_->Find(edit.quantized.scales);
  std::string blocks(static_cast<size_t>(d * in / 2), '\0');
  std::string scales(static_cast<size_t>(d * in / 32), '\0');
  BEARING_RETURN_IF_ERROR(
      source_->Read(blocks_at.shard, source_->entry(blocks_at).file_offset + matrix * d * in / 2, absl::MakeSpan(blocks)));
  BEARING_RETURN_IF_ERROR(
      source_->Read(scales_at.shard, source_->entry(scales_at).file_offset + matrix * d * in / 32, absl::MakeSpan(scales)));
  std::vector<float> values(static_cast<size_t>(d * in));
  for (int64_t group = 0; group < d * in / 32; ++group) {
    DecodeMxfp4(reinterpret_cast<const uint8_t*>(blocks.data()) + group * 16, 16,
                static_cast<uint8_t>(scales[static_cast<size_t>(group)]), values.data() + group * 32);
  }
  if (edit.strength != 0) {
    char* const bytes = reinterpret_cast<char*>(values.data());
    ColumnSums sums(edit.basis->count, in);
    SumColumns(*edit.basis, DType::kF32, bytes, 0, d, in, &sums);
    RemoveFromColumns(edit.removal(), sums, DType::kF32, bytes, 0, d, in);
  }
  // Tiles, so that neither side walks through memory in long steps.
  constexpr int64_t kTile = 32;
  std::vector<float> line(static_cast<size_t>(d * kTile));
  for (int64_t first = 0; first < in; first += kTile) {
    const int64_t count = std::min(kTile, in - first);
    for (int64_t row = 0; row < d; ++row) {
      for (int64_t c = 0; c < count; ++c) {
        line[static_cast<size_t>(c * d + row)] = values[static_cast<size_t>(row * in + first + c)];
      }
    }
    Encode(edit.dtype, line.data(), count * d, out.data() + first * d * DTypeSize(edit.dtype));
  }
  return absl::OkStatus();
}

// Rows of a quantized matrix in fp32.
absl::StatusOr<std::vector<float>> TensorEditor::ReadFp8(const TensorEdit& edit, const std::vector<float>& scales, int64_t row,
                                                         int64_t rows) const {
  const auto at = *source_->Find(edit.quantized.values);
  std::string bytes(static_cast<size_t>(rows * edit.columns), '\0');
  BEARING_RETURN_IF_ERROR(source_->Read(at.shard, source_->entry(at).file_offset + row * edit.columns, absl::MakeSpan(bytes)));
  std::vector<float> values(bytes.size());
  const int64_t block = edit.quantized.block_columns;
  const int64_t blocks = Blocks(edit.columns, block);
  for (int64_t i = 0; i < rows; ++i) {
    const float* const scale = scales.data() + (row + i) / edit.quantized.block_rows * blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t from = i * edit.columns + b * block;
      const int64_t count = std::min(block, edit.columns - b * block);
      DecodeE4M3(reinterpret_cast<const uint8_t*>(bytes.data()) + from, count, scale[b], values.data() + from);
    }
  }
  return values;
}

// Sums and fresh scales: two passes over the tensor, in blocks.
absl::Status TensorEditor::PrepareFp8(const TensorEdit& edit, Shared* shared) {
  const std::lock_guard<std::mutex> lock(shared->mutex);
  if (!shared->fresh_scales.empty()) return absl::OkStatus();
  const auto scales_at = *source_->Find(edit.quantized.scales);
  const sharding::SafetensorsEntry& entry = source_->entry(scales_at);
  const int64_t scale_count = entry.num_bytes / DTypeSize(entry.dtype);
  std::string bytes(static_cast<size_t>(entry.num_bytes), '\0');
  BEARING_RETURN_IF_ERROR(source_->Read(scales_at.shard, entry.file_offset, absl::MakeSpan(bytes)));
  shared->scales.resize(static_cast<size_t>(scale_count));
  Decode(entry.dtype, bytes.data(), scale_count, shared->scales.data());

  const int64_t step = std::max<int64_t>(1, kBlockBytes / 4 / std::max<int64_t>(1, edit.columns));
  ColumnSums sums(edit.basis->count, edit.columns);
  for (int64_t row = 0; row < edit.rows; row += step) {
    const int64_t count = std::min(step, edit.rows - row);
    BEARING_ASSIGN_OR_RETURN(const std::vector<float> values, ReadFp8(edit, shared->scales, row, count));
    SumColumns(*edit.basis, DType::kF32, reinterpret_cast<const char*>(values.data()), row, count, edit.columns, &sums);
  }
  std::vector<float> largest(static_cast<size_t>(scale_count));
  const int64_t block = edit.quantized.block_columns;
  const int64_t blocks = Blocks(edit.columns, block);
  for (int64_t row = 0; row < edit.rows; row += step) {
    const int64_t count = std::min(step, edit.rows - row);
    BEARING_ASSIGN_OR_RETURN(std::vector<float> values, ReadFp8(edit, shared->scales, row, count));
    RemoveFromColumns(edit.removal(), sums, DType::kF32, reinterpret_cast<char*>(values.data()), row, count, edit.columns);
    for (int64_t i = 0; i < count; ++i) {
      float* const of_row = largest.data() + (row + i) / edit.quantized.block_rows * blocks;
      for (int64_t c = 0; c < edit.columns; ++c) {
        of_row[c / block] = std::max(of_row[c / block], std::abs(values[static_cast<size_t>(i * edit.columns + c)]));
      }
    }
  }
  for (float& scale : largest) scale = ScaleFor(scale, entry.dtype);
  shared->fresh_scales = std::move(largest);
  shared->sums = std::move(sums);
  return absl::OkStatus();
}

absl::Status TensorEditor::MakeFp8Scales(const TensorEdit& edit, absl::Span<char> out) {
  const std::shared_ptr<Shared> shared = Share(edit, 0);
  BEARING_RETURN_IF_ERROR(PrepareFp8(edit, shared.get()));
  Encode(edit.dtype, shared->fresh_scales.data(), static_cast<int64_t>(shared->fresh_scales.size()), out.data());
  return absl::OkStatus();
}

absl::Status TensorEditor::MakeFp8Values(const TensorEdit& edit, int64_t begin, absl::Span<char> out) {
  const std::shared_ptr<Shared> shared = Share(edit, 0);
  BEARING_RETURN_IF_ERROR(PrepareFp8(edit, shared.get()));
  const int64_t first_row = begin / edit.columns;
  const int64_t rows = static_cast<int64_t>(out.size()) / edit.columns;
  const int64_t step = std::max<int64_t>(1, kBlockBytes / 4 / std::max<int64_t>(1, edit.columns));
  const int64_t block = edit.quantized.block_columns;
  const int64_t blocks = Blocks(edit.columns, block);
  QuantizationError error;
  std::vector<float> stored(static_cast<size_t>(std::min(block, edit.columns)));
  for (int64_t row = first_row; row < first_row + rows; row += step) {
    const int64_t count = std::min(step, first_row + rows - row);
    BEARING_ASSIGN_OR_RETURN(std::vector<float> values, ReadFp8(edit, shared->scales, row, count));
    RemoveFromColumns(edit.removal(), *shared->sums, DType::kF32, reinterpret_cast<char*>(values.data()), row, count,
                      edit.columns);
    for (int64_t i = 0; i < count; ++i) {
      const float* const scale = shared->fresh_scales.data() + (row + i) / edit.quantized.block_rows * blocks;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t width = std::min(block, edit.columns - b * block);
        const float* const exact = values.data() + i * edit.columns + b * block;
        auto* const to = reinterpret_cast<uint8_t*>(out.data()) + (row + i - first_row) * edit.columns + b * block;
        EncodeE4M3(exact, width, 1.0f / scale[b], to);
        DecodeE4M3(to, width, scale[b], stored.data());
        for (int64_t c = 0; c < width; ++c) {
          const double difference = static_cast<double>(stored[static_cast<size_t>(c)]) - static_cast<double>(exact[c]);
          error.error += difference * difference;
          error.all += static_cast<double>(exact[c]) * static_cast<double>(exact[c]);
        }
      }
    }
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  errors_[edit.weight].error += error.error;
  errors_[edit.weight].all += error.all;
  return absl::OkStatus();
}

}  // namespace bearing::edit
