#include "worker/edit/verify_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <memory>
#include <optional>

#include "sharding/concat.h"
#include "sharding/direct_file.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "worker/edit/float8.h"
#include "worker/edit/tensor_editor.h"
#include "worker/edit/write_parts.h"

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

// A file block by block, from the disk and not from the page cache where that can be: while a block is looked at, it is also
// hashed, and the next one is read.
class FileReader {
 public:
  static absl::StatusOr<std::unique_ptr<FileReader>> Open(const std::string& path) {
    BEARING_ASSIGN_OR_RETURN(sharding::FileDescriptor cached, sharding::OpenForReading(path));
    BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(cached, path));
    std::unique_ptr<FileReader> reader(new FileReader(path, std::move(cached), size));
    reader->StartReading();
    return reader;
  }

  int64_t size() const { return size_; }

  // The next block; empty at the end of the file. It lives until the next call.
  absl::StatusOr<absl::Span<const char>> Next() {
    Wait();
    if (!next_.valid()) return absl::Span<const char>();
    BEARING_RETURN_IF_ERROR(next_.get());
    const absl::Span<const char> block(buffers_[turn_].data(), static_cast<size_t>(std::min(kBlock, size_ - offset_)));
    offset_ += static_cast<int64_t>(block.size());
    turn_ = 1 - turn_;
    StartReading();
    hashing_ = std::async(std::launch::async, [this, block] { sha_.Update(std::string_view(block.data(), block.size())); });
    return block;
  }

  absl::StatusOr<std::string> Finish() {
    Wait();
    return sha_.Finish();
  }

 private:
  static constexpr int64_t kBlock = 16 << 20;

  FileReader(const std::string& path, sharding::FileDescriptor cached, int64_t size)
      : path_(path), cached_(std::move(cached)), direct_(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)), size_(size) {
    for (sharding::DirectBuffer& buffer : buffers_)
      buffer = sharding::DirectBuffer(std::min(kBlock, size + sharding::kDirectAlignment), 0);
  }

  void StartReading() {
    if (offset_ >= size_) return;
    next_ = std::async(std::launch::async, [this, offset = offset_, to = buffers_[turn_].data()] {
      const int64_t count = std::min(kBlock, size_ - offset);
      int64_t done = 0;
      // A direct read may end at the file's end or at any multiple of the disk's block; the rest goes through the cache.
      if (direct_.is_open() && count == kBlock) {
        done = std::max<int64_t>(0, ::pread(direct_.get(), to, static_cast<size_t>(kBlock), offset));
      }
      return sharding::ReadAt(cached_, offset + done, absl::MakeSpan(to + done, static_cast<size_t>(count - done)), path_);
    });
  }

  void Wait() {
    if (hashing_.valid()) hashing_.get();
  }

  const std::string path_;
  const sharding::FileDescriptor cached_;
  const sharding::FileDescriptor direct_;  // Closed where there are no direct reads.
  const int64_t size_;
  sharding::Sha256 sha_;
  int64_t offset_ = 0;  // Behind the block that was handed out.
  sharding::DirectBuffer buffers_[2];
  int turn_ = 0;
  // Last: they end before what they use.
  std::future<absl::Status> next_;
  std::future<void> hashing_;
};

// Compares the parts of a file with what was written, as their bytes pass by.
class PartComparer {
 public:
  PartComparer(const std::string& path, const std::vector<Part>& parts, size_t file,
               const std::map<size_t, uint64_t>& checksums)
      : path_(path), parts_(parts), file_(file), checksums_(checksums) {
    const auto first = std::partition_point(parts.begin(), parts.end(), [file](const Part& part) { return part.file < file; });
    part_ = static_cast<size_t>(first - parts.begin());
  }

  absl::Status Add(absl::Span<const char> bytes) {
    while (!bytes.empty() && part_ < parts_.size() && parts_[part_].file == file_) {
      const auto take =
          static_cast<size_t>(std::min<int64_t>(parts_[part_].num_bytes - seen_, static_cast<int64_t>(bytes.size())));
      checksum_.Update(bytes.subspan(0, take));
      bytes.remove_prefix(take);
      seen_ += static_cast<int64_t>(take);
      if (seen_ < parts_[part_].num_bytes) break;
      const auto expected = checksums_.find(part_);
      if (expected != checksums_.end() && expected->second != checksum_.Finish()) {
        return absl::DataLossError(Concat("bytes read back differ from those written: file=", path_,
                                          " offset=", parts_[part_].offset, " bytes=", parts_[part_].num_bytes));
      }
      checksum_ = Checksum();
      seen_ = 0;
      ++part_;
    }
    return absl::OkStatus();
  }

 private:
  const std::string& path_;
  const std::vector<Part>& parts_;
  const size_t file_;
  const std::map<size_t, uint64_t>& checksums_;
  size_t part_ = 0;
  int64_t seen_ = 0;
  Checksum checksum_;
};

absl::Status CheckTensor(const TensorCheck& check, const std::string& path) {
  if (!check.finite)
    return absl::DataLossError(Concat("edited tensor holds NaN or Inf: file=", path, " tensor=", check.tensor));
  if (check.limited && check.residue > check.limit) {
    return absl::DataLossError(Concat("edited tensor still has the direction: file=", path, " tensor=", check.tensor,
                                      " residue=", check.residue, " limit=", check.limit));
  }
  return absl::OkStatus();
}

// The scales of a quantized tensor, from whatever file of the copy they are in.
absl::StatusOr<std::vector<float>> ReadScales(const std::string& folder, const EditPlan& plan, const TensorEdit& edit) {
  const auto found = std::find_if(plan.copy.tensors.begin(), plan.copy.tensors.end(),
                                  [&](const sharding::OutputTensor& tensor) { return tensor.name == edit.quantized.scales; });
  if (found == plan.copy.tensors.end()) {
    return absl::InternalError(Concat("copy has no scales: tensor=", edit.quantized.scales));
  }
  const std::string path = Concat(folder, "/", plan.copy.files[found->file].name);
  BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::OpenForReading(path));
  std::string bytes(static_cast<size_t>(found->num_bytes), '\0');
  BEARING_RETURN_IF_ERROR(sharding::ReadAt(file, found->offset, absl::MakeSpan(bytes), path));
  if (edit.kind == TensorEdit::Kind::kMxfp4Blocks) {
    std::vector<float> scales;
    for (const char byte : bytes) scales.push_back(static_cast<float>(static_cast<uint8_t>(byte)));
    return scales;
  }
  std::vector<float> scales(bytes.size() / static_cast<size_t>(sharding::DTypeSize(found->dtype)));
  Decode(found->dtype, bytes.data(), static_cast<int64_t>(scales.size()), scales.data());
  return scales;
}

// Deals the bytes of a file out to its header and tensors, in order.
class FileMeter {
 public:
  FileMeter(const std::string& folder, const std::string& path, const EditPlan& plan, size_t file)
      : folder_(folder), path_(path), plan_(plan), file_(file) {
    const std::vector<sharding::OutputTensor>& tensors = plan.copy.tensors;
    next_ =
        static_cast<size_t>(std::partition_point(tensors.begin(), tensors.end(),
                                                 [file](const sharding::OutputTensor& tensor) { return tensor.file < file; }) -
                            tensors.begin());
  }

  absl::Status Add(absl::Span<const char> bytes) {
    BEARING_RETURN_IF_ERROR(AddHeader(&bytes));
    while (!bytes.empty() && next_ < plan_.copy.tensors.size() && plan_.copy.tensors[next_].file == file_) {
      const sharding::OutputTensor& tensor = plan_.copy.tensors[next_];
      if (seen_ == 0) BEARING_RETURN_IF_ERROR(Begin());
      const auto take = static_cast<size_t>(std::min<int64_t>(tensor.num_bytes - seen_, static_cast<int64_t>(bytes.size())));
      if (meter_) meter_->Add(bytes.subspan(0, take));
      bytes.remove_prefix(take);
      seen_ += static_cast<int64_t>(take);
      if (seen_ < tensor.num_bytes) break;
      if (meter_) {
        checks_.push_back(meter_->Finish(plan_.edits.at(next_).weight));
        BEARING_RETURN_IF_ERROR(CheckTensor(checks_.back(), path_));
      }
      seen_ = 0;
      ++next_;
    }
    return absl::OkStatus();
  }

  std::vector<TensorCheck> Finish() { return std::move(checks_); }

 private:
  absl::Status Begin() {
    meter_.reset();
    const auto edit = plan_.edits.find(next_);
    if (edit == plan_.edits.end() || !IsMeasured(edit->second) || edit->second.strength == 0) return absl::OkStatus();
    std::vector<float> scales;
    if (IsQuantized(edit->second)) {
      BEARING_ASSIGN_OR_RETURN(scales, ReadScales(folder_, plan_, edit->second));
    }
    meter_.emplace(edit->second, std::move(scales));
    return absl::OkStatus();
  }

  absl::Status AddHeader(absl::Span<const char>* bytes) {
    const std::string& want = plan_.copy.files[file_].framed_header;
    const size_t take = std::min(want.size() - header_seen_, bytes->size());
    if (want.compare(header_seen_, take, bytes->data(), take) != 0) {
      return absl::DataLossError(Concat("header read back differs from the one written: file=", path_));
    }
    header_seen_ += take;
    bytes->remove_prefix(take);
    return absl::OkStatus();
  }

  const std::string& folder_;
  const std::string& path_;
  const EditPlan& plan_;
  const size_t file_;
  size_t header_seen_ = 0;
  size_t next_ = 0;   // Tensor.
  int64_t seen_ = 0;  // Bytes of it.
  std::optional<TensorMeter> meter_;
  std::vector<TensorCheck> checks_;
};

}  // namespace

absl::StatusOr<FileCheck> VerifyFile(const std::string& folder, const EditPlan& plan, size_t file,
                                     const std::vector<Part>& parts, const std::map<size_t, uint64_t>& checksums) {
  const sharding::CopyPlan::File& planned = plan.copy.files[file];
  const std::string path = Concat(folder, "/", planned.name);
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<FileReader> reader, FileReader::Open(path));
  if (reader->size() != planned.size) {
    return absl::DataLossError(
        Concat("written file has another size: file=", path, " want=", planned.size, " got=", reader->size()));
  }
  PartComparer comparer(path, parts, file, checksums);
  FileMeter meter(folder, path, plan, file);
  for (;;) {
    BEARING_ASSIGN_OR_RETURN(const absl::Span<const char> block, reader->Next());
    if (block.empty()) break;
    BEARING_RETURN_IF_ERROR(comparer.Add(block));
    BEARING_RETURN_IF_ERROR(meter.Add(block));
  }
  FileCheck check{.name = planned.name, .size = planned.size, .sha256 = {}, .tensors = meter.Finish()};
  BEARING_ASSIGN_OR_RETURN(check.sha256, reader->Finish());
  return check;
}

}  // namespace bearing::edit
