#include "sharding/checkpoint_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {

struct CheckpointReader::Impl {
  std::unique_ptr<WeightFiles> weights;
  ModelConfig config;
  ParamLayout layout;

  absl::Status MatchLayout();
  absl::Status ReadColumns(const Location& at, Range range, absl::Span<char> out) const;
};

absl::Status CheckpointReader::Impl::MatchLayout() {
  absl::StatusOr<ParamLayout> matched = ParamLayout::Match(config, weights->tensors());
  if (!matched.ok()) {
    return absl::Status(matched.status().code(), Concat(matched.status().message(), " folder=", weights->model_dir()));
  }
  layout = *std::move(matched);
  // What is stored counts, whatever the config says.
  config.dtype = weights->entry(*weights->Find(layout.Find(ParamRole::kEmbedding)->name)).dtype;
  return absl::OkStatus();
}

CheckpointReader::CheckpointReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CheckpointReader::~CheckpointReader() = default;

absl::StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::Open(const std::string& model_dir) {
  return Open(model_dir, *MakeLocalFolder(model_dir));
}

absl::StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::Open(const std::string& model_dir,
                                                                         const FileFolder& shards) {
  auto impl = std::make_unique<Impl>();
  BEARING_ASSIGN_OR_RETURN(impl->config, LoadModelConfig(model_dir));
  BEARING_ASSIGN_OR_RETURN(impl->weights, WeightFiles::Open(model_dir, shards));
  BEARING_RETURN_IF_ERROR(impl->MatchLayout());
  return std::unique_ptr<CheckpointReader>(new CheckpointReader(std::move(impl)));
}

const ModelConfig& CheckpointReader::config() const { return impl_->config; }
const ParamLayout& CheckpointReader::layout() const { return impl_->layout; }
const WeightFiles& CheckpointReader::weights() const { return *impl_->weights; }
const std::string& CheckpointReader::model_dir() const { return impl_->weights->model_dir(); }
const std::vector<CheckpointReader::Shard>& CheckpointReader::shards() const { return impl_->weights->shards(); }

absl::StatusOr<CheckpointReader::Location> CheckpointReader::Find(std::string_view tensor) const {
  const Location* const found = impl_->weights->Find(tensor);
  if (found == nullptr) {
    return absl::NotFoundError(Concat("checkpoint has no such tensor: tensor=", Escaped(tensor), " folder=", model_dir()));
  }
  return *found;
}

const SafetensorsEntry& CheckpointReader::entry(const Location& at) const { return impl_->weights->entry(at); }

absl::Status CheckpointReader::ReadSlice(std::string_view tensor, int axis, Range range, absl::Span<char> out) const {
  BEARING_ASSIGN_OR_RETURN(const Location at, Find(tensor));
  const SafetensorsEntry& entry = impl_->weights->entry(at);
  const auto axes = static_cast<int>(entry.shape.size());
  if (axes < 1 || axes > 2 || axis < 0 || axis >= axes) {
    return absl::InvalidArgumentError(
        Concat("tensor cannot be cut on this axis: tensor=", tensor, " axes=", axes, " axis=", axis));
  }
  const int64_t length = entry.shape[static_cast<size_t>(axis)];
  if (range.begin < 0 || range.end < range.begin || range.end > length) {
    return absl::InvalidArgumentError(
        Concat("range is outside the tensor: tensor=", tensor, " begin=", range.begin, " end=", range.end, " length=", length));
  }
  const int64_t bytes_of_one = length == 0 ? 0 : entry.num_bytes / length;
  if (static_cast<int64_t>(out.size()) != range.size() * bytes_of_one) {
    return absl::InvalidArgumentError(
        Concat("buffer has the wrong size: tensor=", tensor, " want=", range.size() * bytes_of_one, " got=", out.size()));
  }
  if (axis == 1) return impl_->ReadColumns(at, range, out);
  return impl_->weights->Read(at.shard, entry.file_offset + range.begin * bytes_of_one, out);
}

absl::Status CheckpointReader::Impl::ReadColumns(const Location& at, Range range, absl::Span<char> out) const {
  const SafetensorsEntry& entry = weights->entry(at);
  const RandomAccessFile& file = weights->file(at.shard);
  const int64_t rows = entry.shape[0];
  const int64_t row_bytes = entry.shape[1] * DTypeSize(entry.dtype);
  const int64_t part_begin = range.begin * DTypeSize(entry.dtype);
  const int64_t part_bytes = range.size() * DTypeSize(entry.dtype);
  if (rows == 0 || part_bytes == 0) return absl::OkStatus();
  if (part_bytes == row_bytes) return file.ReadAt(entry.file_offset, out);

  const int64_t block_rows = std::clamp<int64_t>(file.block_bytes() / row_bytes, 1, rows);
  std::vector<char> block(static_cast<size_t>(block_rows * row_bytes));
  char* to = out.data();
  for (int64_t first = 0; first < rows; first += block_rows) {
    const int64_t count = std::min(block_rows, rows - first);
    const absl::Span<char> bytes = absl::MakeSpan(block.data(), static_cast<size_t>(count * row_bytes));
    BEARING_RETURN_IF_ERROR(file.ReadAt(entry.file_offset + first * row_bytes, bytes));
    for (int64_t row = 0; row < count; ++row) {
      std::memcpy(to, block.data() + row * row_bytes + part_begin, static_cast<size_t>(part_bytes));
      to += part_bytes;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::Read(std::string_view tensor, absl::Span<char> out) const {
  BEARING_ASSIGN_OR_RETURN(const Location at, Find(tensor));
  const SafetensorsEntry& entry = impl_->weights->entry(at);
  if (static_cast<int64_t>(out.size()) != entry.num_bytes) {
    return absl::InvalidArgumentError(
        Concat("buffer has the wrong size: tensor=", tensor, " want=", entry.num_bytes, " got=", out.size()));
  }
  return impl_->weights->Read(at.shard, entry.file_offset, out);
}

absl::StatusOr<std::string> CheckpointReader::Digest() const { return impl_->weights->Digest(); }

}  // namespace bearing::sharding
