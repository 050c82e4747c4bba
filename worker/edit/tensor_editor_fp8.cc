// Weights of 8-bit floats: read as value x scale, edited, and stored on fresh scales (docs/edit.md, "Quantized checkpoints").
#include <algorithm>
#include <cmath>
#include <limits>

#include "sharding/dtype.h"
#include "sharding/status_macros.h"
#include "worker/edit/compensated_rounding.h"
#include "worker/edit/float8.h"
#include "worker/edit/tensor_editor.h"

namespace bearing::edit {
namespace {

using sharding::DType;

// Values that pass by at once, as fp32.
constexpr int64_t kFp8BlockBytes = 8 << 20;

int64_t RowsAtOnce(const TensorEdit& edit) { return std::max<int64_t>(1, kFp8BlockBytes / 4 / edit.columns); }
int64_t BlockColumns(const TensorEdit& edit) {
  return (edit.columns + edit.quantized.block_columns - 1) / edit.quantized.block_columns;
}
int64_t BlockRows(const TensorEdit& edit) { return (edit.rows + edit.quantized.block_rows - 1) / edit.quantized.block_rows; }

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

// The sums, for the columns [first, first + count).
ColumnSums Slice(const ColumnSums& sums, int64_t directions, int64_t columns, int64_t first, int64_t count) {
  ColumnSums slice(directions, count);
  for (int64_t k = 0; k < directions; ++k) {
    std::copy_n(sums.dots.begin() + k * columns + first, count, slice.dots.begin() + k * count);
  }
  std::copy_n(sums.squares.begin() + first, count, slice.squares.begin());
  return slice;
}

}  // namespace

absl::StatusOr<std::vector<float>> TensorEditor::ReadFp8(const TensorEdit& edit, const Shared& shared,
                                                         absl::Span<const char> stored, int64_t row, int64_t rows) const {
  std::string bytes;
  const char* from = nullptr;
  if (!stored.empty()) {
    from = stored.data() + row * edit.columns;
  } else {
    const auto at = *source_->Find(edit.quantized.values);
    bytes.resize(static_cast<size_t>(rows * edit.columns));
    BEARING_RETURN_IF_ERROR(source_->Read(
        at.shard, source_->entry(at).file_offset + (shared.matrix * edit.rows + row) * edit.columns, absl::MakeSpan(bytes)));
    from = bytes.data();
  }
  std::vector<float> values(static_cast<size_t>(rows * edit.columns));
  const int64_t block = edit.quantized.block_columns;
  const int64_t blocks = BlockColumns(edit);
  for (int64_t i = 0; i < rows; ++i) {
    const float* const scale = shared.scales.data() + (row + i) / edit.quantized.block_rows * blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t at = i * edit.columns + b * block;
      const int64_t count = std::min(block, edit.columns - b * block);
      DecodeE4M3(reinterpret_cast<const uint8_t*>(from) + at, count, scale[b], values.data() + at);
    }
  }
  return values;
}

// Two passes over the matrix: one for its sums, one for the largest value that each block will hold.
absl::Status TensorEditor::FindFp8Scales(const TensorEdit& edit, absl::Span<const char> stored, Shared* shared) {
  if (!shared->fresh_scales.empty()) return absl::OkStatus();
  const auto scales_at = *source_->Find(edit.quantized.scales);
  const sharding::SafetensorsEntry& entry = source_->entry(scales_at);
  const int64_t scale_count = BlockRows(edit) * BlockColumns(edit);
  std::string bytes(static_cast<size_t>(scale_count * sharding::DTypeSize(entry.dtype)), '\0');
  BEARING_RETURN_IF_ERROR(source_->Read(
      scales_at.shard, entry.file_offset + shared->matrix * static_cast<int64_t>(bytes.size()), absl::MakeSpan(bytes)));
  shared->scales.resize(static_cast<size_t>(scale_count));
  Decode(entry.dtype, bytes.data(), scale_count, shared->scales.data());

  const int64_t step = RowsAtOnce(edit);
  ColumnSums sums(edit.basis->count, edit.columns);
  for (int64_t row = 0; row < edit.rows; row += step) {
    const int64_t count = std::min(step, edit.rows - row);
    BEARING_ASSIGN_OR_RETURN(const std::vector<float> values, ReadFp8(edit, *shared, stored, row, count));
    SumColumns(*edit.basis, DType::kF32, reinterpret_cast<const char*>(values.data()), row, count, edit.columns, &sums);
  }
  std::vector<float> largest(static_cast<size_t>(scale_count));
  const int64_t block = edit.quantized.block_columns;
  const int64_t blocks = BlockColumns(edit);
  for (int64_t row = 0; row < edit.rows; row += step) {
    const int64_t count = std::min(step, edit.rows - row);
    BEARING_ASSIGN_OR_RETURN(std::vector<float> values, ReadFp8(edit, *shared, stored, row, count));
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

// Strip by strip; a matrix that is not in memory is read in bands of columns that would fit.
absl::Status TensorEditor::FindFp8Shift(const TensorEdit& edit, absl::Span<const char> stored, Shared* shared) {
  if (!shared->shift.empty()) return absl::OkStatus();
  const int64_t count = edit.basis->count;
  std::vector<float> shift(static_cast<size_t>(count * edit.columns));
  const int64_t block = edit.quantized.block_columns;
  const int64_t step = RowsAtOnce(edit);
  const int64_t band_columns = stored.empty() ? std::max(kStripColumns, matrix_bytes_ / edit.rows) : edit.columns;
  std::string band;
  for (int64_t first = 0; first < edit.columns; first += band_columns) {
    const int64_t width = std::min(band_columns, edit.columns - first);
    absl::Span<const char> in_hand = stored;
    if (stored.empty()) {
      band.resize(static_cast<size_t>(edit.rows * width));
      const auto at = *source_->Find(edit.quantized.values);
      std::string rows_read(static_cast<size_t>(step * edit.columns), '\0');
      for (int64_t row = 0; row < edit.rows; row += step) {
        const int64_t rows = std::min(step, edit.rows - row);
        BEARING_RETURN_IF_ERROR(
            source_->Read(at.shard, source_->entry(at).file_offset + (shared->matrix * edit.rows + row) * edit.columns,
                          absl::MakeSpan(rows_read.data(), static_cast<size_t>(rows * edit.columns))));
        for (int64_t i = 0; i < rows; ++i) {
          std::copy_n(rows_read.data() + i * edit.columns + first, width, band.data() + (row + i) * width);
        }
      }
      in_hand = band;
    }
    int64_t end = 0;
    for (int64_t begin = first; begin < first + width; begin = end) {
      // No further than the block, so that a row has one scale.
      end = std::min({begin + kStripColumns, first + width, (begin / block + 1) * block});
      Strip strip(edit.rows);
      std::vector<float> values(static_cast<size_t>(edit.rows * (end - begin)));
      for (int64_t i = 0; i < edit.rows; ++i) {
        const auto scale = static_cast<size_t>(i / edit.quantized.block_rows * BlockColumns(edit) + begin / block);
        DecodeE4M3(reinterpret_cast<const uint8_t*>(in_hand.data()) + i * width + begin - first, end - begin,
                   shared->scales[scale], values.data() + i * (end - begin));
        strip.scales[static_cast<size_t>(i)] = shared->fresh_scales[scale];
      }
      RemoveFromColumns(edit.removal(), Slice(*shared->sums, count, edit.columns, begin, end - begin), DType::kF32,
                        reinterpret_cast<char*>(values.data()), 0, edit.rows, end - begin);
      for (int64_t i = 0; i < edit.rows; ++i) std::copy_n(values.data() + i * (end - begin), end - begin, strip.row(i));
      const std::vector<float> found = FindShift(*edit.basis, Grid::kE4M3, strip);
      for (int64_t k = 0; k < count; ++k) {
        std::copy_n(found.begin() + k * kStripColumns, end - begin, shift.begin() + k * edit.columns + begin);
      }
    }
  }
  shared->shift = std::move(shift);
  return absl::OkStatus();
}

absl::Status TensorEditor::MakeFp8Scales(const TensorEdit& edit, absl::Span<char> out) {
  const int64_t count = BlockRows(edit) * BlockColumns(edit);
  for (int64_t matrix = 0; matrix < edit.matrices; ++matrix) {
    const std::shared_ptr<Shared> shared = Share(edit, matrix);
    const std::lock_guard<std::mutex> lock(shared->mutex);
    BEARING_RETURN_IF_ERROR(FindFp8Scales(edit, {}, shared.get()));
    Encode(edit.dtype, shared->fresh_scales.data(), count, out.data() + matrix * count * sharding::DTypeSize(edit.dtype));
  }
  return absl::OkStatus();
}

absl::Status TensorEditor::MakeFp8Values(const TensorEdit& edit, int64_t begin, absl::Span<char> out) {
  const int64_t matrix_bytes = edit.rows * edit.columns;
  const int64_t first_row = begin % matrix_bytes / edit.columns;
  const int64_t rows = static_cast<int64_t>(out.size()) / edit.columns;
  const std::shared_ptr<Shared> shared = Share(edit, begin / matrix_bytes);
  // A whole matrix is read once, to where its new values go.
  absl::Span<const char> stored;
  if (rows == edit.rows) {
    const auto at = *source_->Find(edit.quantized.values);
    BEARING_RETURN_IF_ERROR(source_->Read(at.shard, source_->entry(at).file_offset + begin, out));
    stored = out;
  }
  {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    BEARING_RETURN_IF_ERROR(FindFp8Scales(edit, stored, shared.get()));
    BEARING_RETURN_IF_ERROR(FindFp8Shift(edit, stored, shared.get()));
  }
  const int64_t step = RowsAtOnce(edit);
  const int64_t block = edit.quantized.block_columns;
  const int64_t blocks = BlockColumns(edit);
  QuantizationError error;
  std::vector<float> back(static_cast<size_t>(std::min(block, edit.columns)));
  for (int64_t row = first_row; row < first_row + rows; row += step) {
    const int64_t count = std::min(step, first_row + rows - row);
    BEARING_ASSIGN_OR_RETURN(std::vector<float> values, ReadFp8(edit, *shared, stored, row, count));
    RemoveFromColumns(edit.removal(), *shared->sums, DType::kF32, reinterpret_cast<char*>(values.data()), row, count,
                      edit.columns);
    std::vector<float> shifted = values;
    SubtractShift(*edit.basis, shared->shift, row, count, edit.columns, shifted.data());
    for (int64_t i = 0; i < count; ++i) {
      const float* const scale = shared->fresh_scales.data() + (row + i) / edit.quantized.block_rows * blocks;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t width = std::min(block, edit.columns - b * block);
        const int64_t at = i * edit.columns + b * block;
        auto* const to = reinterpret_cast<uint8_t*>(out.data()) + (row - first_row) * edit.columns + at;
        EncodeE4M3(shifted.data() + at, width, 1.0f / scale[b], to);
        DecodeE4M3(to, width, scale[b], back.data());
        for (int64_t c = 0; c < width; ++c) {
          const auto exact = static_cast<double>(values[static_cast<size_t>(at + c)]);
          const double difference = static_cast<double>(back[static_cast<size_t>(c)]) - exact;
          error.error += difference * difference;
          error.all += exact * exact;
        }
      }
    }
  }
  AddError(edit.weight, error);
  return absl::OkStatus();
}

}  // namespace bearing::edit
