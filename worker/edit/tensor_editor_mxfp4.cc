// Weights of 4-bit floats (MXFP4, OCP Microscaling): [matrices, rows, columns] with a scale for 32 neighbours of a row. Each
// written vector is a column (docs/edit.md, "Quantized checkpoints").
#include <algorithm>
#include <cmath>

#include "sharding/concat.h"
#include "sharding/dtype.h"
#include "sharding/status_macros.h"
#include "worker/edit/compensated_rounding.h"
#include "worker/edit/float8.h"
#include "worker/edit/tensor_editor.h"

namespace bearing::edit {
namespace {

using sharding::DType;

constexpr int64_t kGroup = 32;
static_assert(kGroup == kStripColumns);
constexpr uint8_t kNanScale = 255;

}  // namespace

struct TensorEditor::Mxfp4Matrix {
  int64_t rows = 0;
  int64_t groups = 0;  // Of a row.
  std::string blocks;
  std::string scales;

  uint8_t scale(int64_t row, int64_t group) const {
    return static_cast<uint8_t>(scales[static_cast<size_t>(row * groups + group)]);
  }
  void Decode(int64_t row, int64_t group, float* out) const {
    DecodeMxfp4(reinterpret_cast<const uint8_t*>(blocks.data()) + (row * groups + group) * (kGroup / 2), kGroup / 2,
                scale(row, group), out);
  }
  // The columns of a group as they are to be.
  Strip Edited(const TensorEdit& edit, int64_t group) const {
    Strip strip(rows);
    for (int64_t row = 0; row < rows; ++row) Decode(row, group, strip.row(row));
    char* const values = reinterpret_cast<char*>(strip.values.data());
    ColumnSums sums(edit.basis->count, kGroup);
    SumColumns(*edit.basis, DType::kF32, values, 0, rows, kGroup, &sums);
    RemoveFromColumns(edit.removal(), sums, DType::kF32, values, 0, rows, kGroup);
    return strip;
  }
};

absl::StatusOr<TensorEditor::Mxfp4Matrix> TensorEditor::ReadMxfp4(const TensorEdit& edit, int64_t matrix) const {
  const auto blocks_at = *source_->Find(edit.quantized.values);
  const auto scales_at = *source_->Find(edit.quantized.scales);
  const std::vector<int64_t>& shape = source_->entry(scales_at).shape;
  Mxfp4Matrix read{.rows = shape[1], .groups = shape[2], .blocks = {}, .scales = {}};
  const int64_t scale_bytes = read.rows * read.groups;
  const int64_t block_bytes = scale_bytes * kGroup / 2;
  read.blocks.resize(static_cast<size_t>(block_bytes));
  read.scales.resize(static_cast<size_t>(scale_bytes));
  BEARING_RETURN_IF_ERROR(source_->Read(blocks_at.shard, source_->entry(blocks_at).file_offset + matrix * block_bytes,
                                        absl::MakeSpan(read.blocks)));
  BEARING_RETURN_IF_ERROR(source_->Read(scales_at.shard, source_->entry(scales_at).file_offset + matrix * scale_bytes,
                                        absl::MakeSpan(read.scales)));
  if (read.scales.find(static_cast<char>(kNanScale)) != std::string::npos) {
    return absl::DataLossError(
        Concat("a scale of a quantized tensor is not a number: scales=", edit.quantized.scales, " matrix=", matrix));
  }
  return read;
}

absl::Status TensorEditor::MakeMxfp4Scales(const TensorEdit& edit, int64_t begin, absl::Span<char> out) {
  BEARING_ASSIGN_OR_RETURN(const Mxfp4Matrix matrix, ReadMxfp4(edit, begin / static_cast<int64_t>(out.size())));
  for (int64_t group = 0; group < matrix.groups; ++group) {
    const Strip strip = matrix.Edited(edit, group);
    for (int64_t row = 0; row < matrix.rows; ++row) {
      out[static_cast<size_t>(row * matrix.groups + group)] =
          static_cast<char>(ChooseMxfp4Scale(strip.row(row), matrix.scale(row, group)));
    }
  }
  return absl::OkStatus();
}

absl::Status TensorEditor::MakeMxfp4Blocks(const TensorEdit& edit, int64_t begin, absl::Span<char> out) {
  BEARING_ASSIGN_OR_RETURN(const Mxfp4Matrix matrix, ReadMxfp4(edit, begin / static_cast<int64_t>(out.size())));
  QuantizationError error;
  std::vector<uint8_t> scales(static_cast<size_t>(matrix.rows));
  for (int64_t group = 0; group < matrix.groups; ++group) {
    Strip strip = matrix.Edited(edit, group);
    for (int64_t row = 0; row < matrix.rows; ++row) {
      const uint8_t scale = ChooseMxfp4Scale(strip.row(row), matrix.scale(row, group));
      scales[static_cast<size_t>(row)] = scale;
      strip.scales[static_cast<size_t>(row)] = std::ldexp(1.0f, static_cast<int>(scale) - 127);
    }
    const std::vector<float> shift = FindShift(*edit.basis, Grid::kE2M1, strip);
    for (int64_t row = 0; row < matrix.rows; ++row) {
      float shifted[kGroup], back[kGroup];
      std::copy_n(strip.row(row), kGroup, shifted);
      SubtractShift(*edit.basis, shift, row, 1, kGroup, shifted);
      auto* const to = reinterpret_cast<uint8_t*>(out.data()) + (row * matrix.groups + group) * (kGroup / 2);
      EncodeE2M1(shifted, kGroup, 1.0f / strip.scales[static_cast<size_t>(row)], to);
      DecodeMxfp4(to, kGroup / 2, scales[static_cast<size_t>(row)], back);
      for (int64_t c = 0; c < kGroup; ++c) {
        const auto exact = static_cast<double>(strip.row(row)[c]);
        const double difference = static_cast<double>(back[c]) - exact;
        error.error += difference * difference;
        error.all += exact * exact;
      }
    }
  }
  AddError(edit.weight, error);
  return absl::OkStatus();
}

// On disk [d_model, in]; the transpose is written.
absl::Status TensorEditor::MakeMxfp4Widened(const TensorEdit& edit, int64_t begin, absl::Span<char> out) {
  BEARING_ASSIGN_OR_RETURN(const Mxfp4Matrix matrix, ReadMxfp4(edit, begin / static_cast<int64_t>(out.size())));
  const int64_t d = matrix.rows;
  std::vector<float> line(static_cast<size_t>(d * kGroup));
  for (int64_t group = 0; group < matrix.groups; ++group) {
    Strip strip(edit.strength == 0 ? d : 0);
    if (edit.strength == 0) {
      for (int64_t row = 0; row < d; ++row) matrix.Decode(row, group, strip.row(row));
    } else {
      strip = matrix.Edited(edit, group);
    }
    for (int64_t row = 0; row < d; ++row) {
      for (int64_t c = 0; c < kGroup; ++c) line[static_cast<size_t>(c * d + row)] = strip.row(row)[c];
    }
    Encode(edit.dtype, line.data(), kGroup * d, out.data() + group * kGroup * d * sharding::DTypeSize(edit.dtype));
  }
  return absl::OkStatus();
}

}  // namespace bearing::edit
