#include "worker/edit/verify_files.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <optional>

#include "sharding/concat.h"
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
  const double ulp = dtype == DType::kF32 ? 0x1p-23 : dtype == DType::kF16 ? 0x1p-10 : dtype == DType::kBF16 ? 0x1p-7 : 0x1p-3;
  // Values of half precision below its normal range keep fewer bits; 8-bit floats likewise.
  return 4 * ulp / std::sqrt(static_cast<double>(d)) + (dtype == DType::kF32 ? 1e-7 : 0);
}

// Measures the rows of one edited tensor as they come.
class TensorMeter {
 public:
  explicit TensorMeter(const TensorEdit& edit) : edit_(edit) {}

  // Bytes [begin, ...) of the tensor: whole rows.
  void Add(int64_t begin, absl::Span<const char> bytes);
  TensorCheck Finish(const std::string& name);

 private:
  void EndMatrix();

  const TensorEdit& edit_;
  std::optional<ColumnSums> sums_;
  SquareSums squares_;
};

void TensorMeter::Add(int64_t begin, absl::Span<const char> bytes) {
  const int64_t row_bytes = edit_.columns * sharding::DTypeSize(edit_.dtype);
  int64_t row = begin / row_bytes;
  int64_t rows = static_cast<int64_t>(bytes.size()) / row_bytes;
  if (!edit_.by_columns) {
    const SquareSums more = SumRows(*edit_.basis, edit_.dtype, bytes.data(), rows);
    squares_.along += more.along;
    squares_.all += more.all;
    return;
  }
  const char* at = bytes.data();
  while (rows > 0) {
    const int64_t in_matrix = row % edit_.rows;
    const int64_t count = std::min(rows, edit_.rows - in_matrix);
    if (!sums_) sums_.emplace(edit_.basis->count, edit_.columns);
    SumColumns(*edit_.basis, edit_.dtype, at, in_matrix, count, edit_.columns, &*sums_);
    if (in_matrix + count == edit_.rows) EndMatrix();
    at += count * row_bytes;
    row += count;
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

// Weights quantized to 8 bits are measured on the values that they stand for only where a scale is constant along d_model; else
// the re-quantization error says how near they are.
bool IsMeasured(const TensorEdit& edit) {
  return edit.kind == TensorEdit::Kind::kValues || edit.kind == TensorEdit::Kind::kMxfp4;
}

class FileReader {
 public:
  FileReader(std::string path, sharding::FileDescriptor file) : path_(std::move(path)), file_(std::move(file)) {}

  // The next bytes of the file; the ones before are hashed meanwhile.
  absl::StatusOr<absl::Span<const char>> Next(int64_t size) {
    std::string& buffer = buffers_[turn_];
    turn_ = 1 - turn_;
    buffer.resize(static_cast<size_t>(size));
    BEARING_RETURN_IF_ERROR(sharding::ReadAt(file_, offset_, absl::MakeSpan(buffer), path_));
    offset_ += size;
    Wait();
    if (size < kSmallest) {
      sha_.Update(buffer);
    } else {
      hashing_ = std::async(std::launch::async, [this, &buffer] { sha_.Update(buffer); });
    }
    return absl::MakeConstSpan(buffer.data(), buffer.size());
  }

  absl::StatusOr<std::string> Finish() {
    Wait();
    return sha_.Finish();
  }
  int64_t offset() const { return offset_; }

 private:
  // Not worth a thread.
  static constexpr int64_t kSmallest = 256 << 10;

  void Wait() {
    if (hashing_.valid()) hashing_.get();
  }

  const std::string path_;
  const sharding::FileDescriptor file_;
  sharding::Sha256 sha_;
  int64_t offset_ = 0;
  std::string buffers_[2];
  int turn_ = 0;
  std::future<void> hashing_;
};

constexpr int64_t kReadBytes = 8 << 20;

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

}  // namespace

absl::StatusOr<FileCheck> VerifyFile(const std::string& folder, const EditPlan& plan, size_t file,
                                     const std::vector<Part>& parts, const std::map<size_t, uint64_t>& checksums) {
  const sharding::CopyPlan::File& planned = plan.copy.files[file];
  const std::string path = Concat(folder, "/", planned.name);
  BEARING_ASSIGN_OR_RETURN(sharding::FileDescriptor opened, sharding::OpenForReading(path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(opened, path));
  if (size != planned.size) {
    return absl::DataLossError(Concat("written file has another size: file=", path, " want=", planned.size, " got=", size));
  }
  FileCheck check{.name = planned.name, .size = size, .sha256 = {}, .tensors = {}};
  FileReader reader(path, std::move(opened));

  PartComparer comparer(path, parts, file, checksums);
  BEARING_ASSIGN_OR_RETURN(const absl::Span<const char> header,
                           reader.Next(static_cast<int64_t>(planned.framed_header.size())));
  if (header != absl::MakeConstSpan(planned.framed_header.data(), planned.framed_header.size())) {
    return absl::DataLossError(Concat("header read back differs from the one written: file=", path));
  }
  BEARING_RETURN_IF_ERROR(comparer.Add(header));
  const auto first = std::partition_point(plan.copy.tensors.begin(), plan.copy.tensors.end(),
                                          [file](const sharding::OutputTensor& tensor) { return tensor.file < file; });
  for (auto i = static_cast<size_t>(first - plan.copy.tensors.begin());
       i < plan.copy.tensors.size() && plan.copy.tensors[i].file == file; ++i) {
    const sharding::OutputTensor& tensor = plan.copy.tensors[i];
    const auto edit = plan.edits.find(i);
    const bool measured = edit != plan.edits.end() && IsMeasured(edit->second) && edit->second.strength != 0;
    std::optional<TensorMeter> meter;
    int64_t unit = 1;
    if (measured) {
      meter.emplace(edit->second);
      unit = edit->second.columns * sharding::DTypeSize(edit->second.dtype);
    }
    const int64_t step = std::max(unit, kReadBytes / unit * unit);
    for (int64_t begin = 0; begin < tensor.num_bytes; begin += step) {
      BEARING_ASSIGN_OR_RETURN(const absl::Span<const char> bytes, reader.Next(std::min(step, tensor.num_bytes - begin)));
      BEARING_RETURN_IF_ERROR(comparer.Add(bytes));
      if (meter) meter->Add(begin, bytes);
    }
    if (!meter) continue;
    check.tensors.push_back(meter->Finish(tensor.name));
    const TensorCheck& done = check.tensors.back();
    if (!done.finite)
      return absl::DataLossError(Concat("edited tensor holds NaN or Inf: file=", path, " tensor=", done.tensor));
    if (done.limited && done.residue > done.limit) {
      return absl::DataLossError(Concat("edited tensor still has the direction: file=", path, " tensor=", done.tensor,
                                        " residue=", done.residue, " limit=", done.limit));
    }
  }
  BEARING_ASSIGN_OR_RETURN(check.sha256, reader.Finish());
  return check;
}

}  // namespace bearing::edit
