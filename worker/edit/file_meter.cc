#include "worker/edit/file_meter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "sharding/concat.h"
#include "sharding/status_macros.h"
#include "worker/edit/float8.h"
#include "worker/edit/projection.h"

namespace bearing::edit {
namespace {

using sharding::DType;

// What rounding may leave of a removed direction in a matrix of d rows: the share of a value that its last place is, times what
// d independent errors add up to along one direction, with room for small matrices.
double LimitOf(DType dtype, int64_t d) {
  const double ulp = dtype == DType::kF32      ? 0x1p-23
                     : dtype == DType::kF16    ? 0x1p-10
                     : dtype == DType::kBF16   ? 0x1p-7
                     : dtype == DType::kF8E4M3 ? 0x1p-3
                                               : 0x1p-1;  // E2M1
  // Values of half precision below its normal range keep fewer bits; 8-bit floats likewise.
  return 4 * ulp / std::sqrt(static_cast<double>(d)) + (dtype == DType::kF32 ? 1e-7 : 0);
}

bool IsQuantized(const TensorEdit& edit) {
  return edit.kind == TensorEdit::Kind::kFp8Values || edit.kind == TensorEdit::Kind::kMxfp4Blocks;
}

// Constants and the scales of quantized weights are not looked at by themselves.
bool IsMeasured(const TensorEdit& edit) {
  return edit.kind == TensorEdit::Kind::kValues || edit.kind == TensorEdit::Kind::kMxfp4Widened || IsQuantized(edit);
}

// A row of a quantized tensor as the values that it stands for. `scales` are those of the whole tensor.
void DecodeRow(const TensorEdit& edit, absl::Span<const float> scales, int64_t row, const char* stored, float* out) {
  const auto* const bytes = reinterpret_cast<const uint8_t*>(stored);
  const bool is_fp8 = edit.kind == TensorEdit::Kind::kFp8Values;
  const int64_t block = is_fp8 ? edit.quantized.block_columns : 32;
  const int64_t blocks = (edit.columns + block - 1) / block;
  const int64_t block_rows = is_fp8 ? edit.quantized.block_rows : 1;
  const int64_t matrix_blocks = (edit.rows + block_rows - 1) / block_rows;
  const int64_t first = (row / edit.rows * matrix_blocks + row % edit.rows / block_rows) * blocks;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t at = b * block;
    const auto scale = scales[static_cast<size_t>(first + b)];
    if (is_fp8) {
      DecodeE4M3(bytes + at, std::min(block, edit.columns - at), scale, out + at);
    } else {
      DecodeMxfp4(bytes + at / 2, block / 2, static_cast<uint8_t>(scale), out + at);
    }
  }
}

}  // namespace

// Not in an unnamed namespace: a member of FileMeter::Impl is of this type, and several sources may be compiled as one.
// Measures the rows of one edited tensor as they come. `scales`: of a quantized one, as numbers; of MXFP4 their bytes.
class TensorMeter {
 public:
  TensorMeter(const TensorEdit& edit, std::vector<float> scales)
      : edit_(edit),
        scales_(std::move(scales)),
        row_bytes_(edit.kind == TensorEdit::Kind::kMxfp4Blocks
                       ? static_cast<size_t>(edit.columns / 2)
                       : static_cast<size_t>(edit.columns * sharding::DTypeSize(edit.dtype))) {}

  // The next bytes of the tensor, cut anywhere.
  void Add(absl::Span<const char> bytes);
  TensorCheck Finish(const std::string& name);

 private:
  void AddRows(const char* at, int64_t rows);
  void EndMatrix();

  const TensorEdit& edit_;
  const std::vector<float> scales_;
  const size_t row_bytes_;
  int64_t row_ = 0;
  std::vector<float> decoded_;
  std::string begun_;  // The first bytes of a row whose rest is to come.
  std::optional<ColumnSums> sums_;
  SquareSums squares_;
};

void TensorMeter::Add(absl::Span<const char> bytes) {
  if (!begun_.empty()) {
    const size_t take = std::min(row_bytes_ - begun_.size(), bytes.size());
    begun_.append(bytes.data(), take);
    bytes.remove_prefix(take);
    if (begun_.size() < row_bytes_) return;
    AddRows(begun_.data(), 1);
    begun_.clear();
  }
  const size_t rows = bytes.size() / row_bytes_;
  AddRows(bytes.data(), static_cast<int64_t>(rows));
  begun_.assign(bytes.data() + rows * row_bytes_, bytes.size() - rows * row_bytes_);
}

void TensorMeter::AddRows(const char* at, int64_t rows) {
  if (!edit_.by_columns) {
    const SquareSums more = SumRows(*edit_.basis, edit_.dtype, at, rows);
    squares_.along += more.along;
    squares_.all += more.all;
    return;
  }
  while (rows > 0) {
    const int64_t in_matrix = row_ % edit_.rows;
    const int64_t count = std::min(rows, edit_.rows - in_matrix);
    if (!sums_) sums_.emplace(edit_.basis->count, edit_.columns);
    if (IsQuantized(edit_)) {
      constexpr int64_t kDecodedRows = 64;
      decoded_.resize(static_cast<size_t>(kDecodedRows * edit_.columns));
      for (int64_t first = 0; first < count; first += kDecodedRows) {
        const int64_t n = std::min(kDecodedRows, count - first);
        for (int64_t i = 0; i < n; ++i) {
          DecodeRow(edit_, scales_, row_ + first + i, at + static_cast<size_t>(first + i) * row_bytes_,
                    decoded_.data() + i * edit_.columns);
        }
        SumColumns(*edit_.basis, DType::kF32, reinterpret_cast<const char*>(decoded_.data()), in_matrix + first, n,
                   edit_.columns, &*sums_);
      }
    } else {
      SumColumns(*edit_.basis, edit_.dtype, at, in_matrix, count, edit_.columns, &*sums_);
    }
    if (in_matrix + count == edit_.rows) EndMatrix();
    at += static_cast<size_t>(count) * row_bytes_;
    row_ += count;
    rows -= count;
  }
}

void TensorMeter::EndMatrix() {
  for (const double dot : sums_->dots) squares_.along += dot * dot;
  for (const double square : sums_->squares) squares_.all += square;
  sums_.reset();
}

TensorCheck TensorMeter::Finish(const std::string& name) {
  TensorCheck check;
  check.tensor = name;
  check.finite = std::isfinite(squares_.all) && std::isfinite(squares_.along);
  check.residue = squares_.all > 0 ? std::sqrt(squares_.along / squares_.all) : 0.0;
  // A bias may be nearly all along a direction, and then little but rounding is left of it; only matrices have a limit.
  check.limited = edit_.strength == 1.0 && edit_.add == nullptr && edit_.rows > 1;
  check.limit = LimitOf(edit_.dtype, edit_.basis->d);
  return check;
}

namespace {

absl::Status CheckTensor(const TensorCheck& check, const std::string& path) {
  if (!check.finite)
    return absl::DataLossError(Concat("edited tensor holds NaN or Inf: file=", path, " tensor=", check.tensor));
  if (check.limited && check.residue > check.limit) {
    return absl::DataLossError(Concat("edited tensor still has the direction: file=", path, " tensor=", check.tensor,
                                      " residue=", check.residue, " limit=", check.limit));
  }
  return absl::OkStatus();
}

// The scales of a quantized tensor as numbers; of MXFP4 their bytes.
std::vector<float> ScalesFrom(const TensorEdit& edit, DType dtype, const std::string& bytes) {
  if (edit.kind == TensorEdit::Kind::kMxfp4Blocks) {
    std::vector<float> scales;
    for (const char byte : bytes) scales.push_back(static_cast<float>(static_cast<uint8_t>(byte)));
    return scales;
  }
  std::vector<float> scales(bytes.size() / static_cast<size_t>(sharding::DTypeSize(dtype)));
  Decode(dtype, bytes.data(), static_cast<int64_t>(scales.size()), scales.data());
  return scales;
}

}  // namespace

struct FileMeter::Impl {
  Impl(const std::string& path, const EditPlan& plan, size_t file, ReadTensor read)
      : path(path), plan(plan), file(file), read(std::move(read)) {
    const std::vector<sharding::OutputTensor>& tensors = plan.copy.tensors;
    next =
        static_cast<size_t>(std::partition_point(tensors.begin(), tensors.end(),
                                                 [file](const sharding::OutputTensor& tensor) { return tensor.file < file; }) -
                            tensors.begin());
  }

  absl::Status AddBlock(absl::Span<const char> bytes);
  absl::Status AddHeader(absl::Span<const char>* bytes);
  absl::Status BeginTensor();
  absl::StatusOr<std::vector<float>> ReadScales(const TensorEdit& edit);

  const std::string path;
  const EditPlan& plan;
  const size_t file;
  const ReadTensor read;
  std::map<std::string, size_t> tensors;  // Of the copy, by name; made when the first scales are wanted.
  std::string pending;                    // The begin of a block.
  size_t header_seen = 0;
  size_t next = 0;   // Tensor.
  int64_t seen = 0;  // Bytes of it.
  std::optional<TensorMeter> meter;
  std::vector<TensorCheck> checks;
};

// Deals the bytes out to the header and the tensors, in order.
absl::Status FileMeter::Impl::AddBlock(absl::Span<const char> bytes) {
  BEARING_RETURN_IF_ERROR(AddHeader(&bytes));
  while (!bytes.empty() && next < plan.copy.tensors.size() && plan.copy.tensors[next].file == file) {
    const sharding::OutputTensor& tensor = plan.copy.tensors[next];
    if (seen == 0) BEARING_RETURN_IF_ERROR(BeginTensor());
    const auto take = static_cast<size_t>(std::min<int64_t>(tensor.num_bytes - seen, static_cast<int64_t>(bytes.size())));
    if (meter) meter->Add(bytes.subspan(0, take));
    bytes.remove_prefix(take);
    seen += static_cast<int64_t>(take);
    if (seen < tensor.num_bytes) break;
    if (meter) {
      checks.push_back(meter->Finish(plan.edits.at(next).weight));
      BEARING_RETURN_IF_ERROR(CheckTensor(checks.back(), path));
    }
    seen = 0;
    ++next;
  }
  return absl::OkStatus();
}

absl::Status FileMeter::Impl::BeginTensor() {
  meter.reset();
  const auto edit = plan.edits.find(next);
  if (edit == plan.edits.end() || !IsMeasured(edit->second) || edit->second.strength == 0) return absl::OkStatus();
  std::vector<float> scales;
  if (IsQuantized(edit->second)) {
    BEARING_ASSIGN_OR_RETURN(scales, ReadScales(edit->second));
  }
  meter.emplace(edit->second, std::move(scales));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> FileMeter::Impl::ReadScales(const TensorEdit& edit) {
  if (tensors.empty()) {
    for (size_t i = 0; i < plan.copy.tensors.size(); ++i) tensors.emplace(plan.copy.tensors[i].name, i);
  }
  const auto found = tensors.find(edit.quantized.scales);
  if (found == tensors.end()) return absl::InternalError(Concat("copy has no scales: tensor=", edit.quantized.scales));
  BEARING_ASSIGN_OR_RETURN(const std::string bytes, read(found->second));
  return ScalesFrom(edit, plan.copy.tensors[found->second].dtype, bytes);
}

absl::Status FileMeter::Impl::AddHeader(absl::Span<const char>* bytes) {
  const std::string& want = plan.copy.files[file].framed_header;
  const size_t take = std::min(want.size() - header_seen, bytes->size());
  if (want.compare(header_seen, take, bytes->data(), take) != 0) {
    return absl::DataLossError(Concat("header read back differs from the one written: file=", path));
  }
  header_seen += take;
  bytes->remove_prefix(take);
  return absl::OkStatus();
}

FileMeter::FileMeter(const std::string& path, const EditPlan& plan, size_t file, ReadTensor read)
    : impl_(std::make_unique<Impl>(path, plan, file, std::move(read))) {}
FileMeter::~FileMeter() = default;

absl::Status FileMeter::Add(absl::Span<const char> bytes) {
  constexpr auto kBlock = static_cast<size_t>(kMeterBlockBytes);
  while (!bytes.empty()) {
    if (impl_->pending.empty() && bytes.size() >= kBlock) {
      BEARING_RETURN_IF_ERROR(impl_->AddBlock(bytes.subspan(0, kBlock)));
      bytes.remove_prefix(kBlock);
      continue;
    }
    const size_t take = std::min(kBlock - impl_->pending.size(), bytes.size());
    impl_->pending.append(bytes.data(), take);
    bytes.remove_prefix(take);
    if (impl_->pending.size() < kBlock) break;
    BEARING_RETURN_IF_ERROR(impl_->AddBlock(impl_->pending));
    impl_->pending.clear();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TensorCheck>> FileMeter::Finish() {
  BEARING_RETURN_IF_ERROR(impl_->AddBlock(impl_->pending));
  impl_->pending.clear();
  return std::move(impl_->checks);
}

}  // namespace bearing::edit
