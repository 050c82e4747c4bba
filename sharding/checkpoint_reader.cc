#include "sharding/checkpoint_reader.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "sharding/checkpoint_index.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {

struct CheckpointReader::Impl {
  std::string model_dir;
  std::string config_text;
  ModelConfig config;
  ParamLayout layout;
  std::vector<Shard> shards;
  std::vector<std::unique_ptr<RandomAccessFile>> files;  // One a shard.
  std::unordered_map<std::string, Location> locations;

  absl::Status OpenShard(const std::string& file_name, const FileFolder& folder);
  absl::Status CheckIndex(const CheckpointIndex& index) const;
  absl::Status MatchLayout();
  absl::Status ReadColumns(const Location& at, Range range, absl::Span<char> out) const;

  const std::string& PathOf(const Location& at) const { return files[at.shard]->name(); }
  const SafetensorsEntry& EntryAt(const Location& at) const { return shards[at.shard].header.entries[at.entry]; }
};

absl::Status CheckpointReader::Impl::OpenShard(const std::string& file_name, const FileFolder& folder) {
  Shard shard;
  shard.file_name = file_name;
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, folder.Open(file_name));
  shard.file_size = file->size();
  BEARING_ASSIGN_OR_RETURN(shard.header, ReadSafetensorsHeader(*file));
  for (size_t i = 0; i < shard.header.entries.size(); ++i) {
    const std::string& name = shard.header.entries[i].name;
    const auto [it, inserted] = locations.emplace(name, Location{.shard = shards.size(), .entry = i});
    if (!inserted) {
      return absl::DataLossError(Concat("tensor is stored twice: tensor=", Escaped(name),
                                        " files=", shards[it->second.shard].file_name, ", ", file_name, " folder=", model_dir));
    }
  }
  shards.push_back(std::move(shard));
  files.push_back(std::move(file));
  return absl::OkStatus();
}

// The index and the shards must say the same, both ways.
absl::Status CheckpointReader::Impl::CheckIndex(const CheckpointIndex& index) const {
  for (const auto& [tensor, file_name] : index.weight_map) {
    const auto it = locations.find(tensor);
    if (it == locations.end() || shards[it->second.shard].file_name != file_name) {
      return absl::DataLossError(
          Concat("tensor of the index is not in its shard: tensor=", Escaped(tensor), " file=", model_dir, "/", file_name));
    }
  }
  for (const auto& [tensor, at] : locations) {
    if (!index.weight_map.contains(tensor)) {
      return absl::DataLossError(
          Concat("tensor of a shard is not in the index: tensor=", Escaped(tensor), " file=", PathOf(at)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::Impl::MatchLayout() {
  std::vector<DiskTensor> on_disk;
  for (const Shard& shard : shards) {
    for (const SafetensorsEntry& entry : shard.header.entries) {
      on_disk.push_back({.name = entry.name, .dtype = entry.dtype, .shape = entry.shape});
    }
  }
  absl::StatusOr<ParamLayout> matched = ParamLayout::Match(config, on_disk);
  if (!matched.ok()) {
    return absl::Status(matched.status().code(), Concat(matched.status().message(), " folder=", model_dir));
  }
  layout = *std::move(matched);
  // What is stored counts, whatever the config says.
  config.dtype = EntryAt(locations.at(layout.Find(ParamRole::kEmbedding)->name)).dtype;
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
  impl->model_dir = model_dir;
  BEARING_ASSIGN_OR_RETURN(impl->config, LoadModelConfig(model_dir));
  BEARING_ASSIGN_OR_RETURN(impl->config_text, ReadWholeFile(Concat(model_dir, "/config.json"), kMaxConfigBytes));
  BEARING_ASSIGN_OR_RETURN(const CheckpointIndex index, FindCheckpointIndex(model_dir, shards));
  for (const std::string& file_name : index.files) BEARING_RETURN_IF_ERROR(impl->OpenShard(file_name, shards));
  if (index.is_sharded) BEARING_RETURN_IF_ERROR(impl->CheckIndex(index));
  BEARING_RETURN_IF_ERROR(impl->MatchLayout());
  return std::unique_ptr<CheckpointReader>(new CheckpointReader(std::move(impl)));
}

const ModelConfig& CheckpointReader::config() const { return impl_->config; }
const ParamLayout& CheckpointReader::layout() const { return impl_->layout; }
const std::string& CheckpointReader::model_dir() const { return impl_->model_dir; }
const std::vector<CheckpointReader::Shard>& CheckpointReader::shards() const { return impl_->shards; }

absl::StatusOr<CheckpointReader::Location> CheckpointReader::Find(std::string_view tensor) const {
  const auto it = impl_->locations.find(std::string(tensor));
  if (it == impl_->locations.end()) {
    return absl::NotFoundError(Concat("checkpoint has no such tensor: tensor=", Escaped(tensor), " folder=", impl_->model_dir));
  }
  return it->second;
}

const RandomAccessFile& CheckpointReader::file(size_t shard) const { return *impl_->files[shard]; }

const SafetensorsEntry& CheckpointReader::entry(const Location& at) const { return impl_->EntryAt(at); }

absl::Status CheckpointReader::ReadSlice(std::string_view tensor, int axis, Range range, absl::Span<char> out) const {
  BEARING_ASSIGN_OR_RETURN(const Location at, Find(tensor));
  const SafetensorsEntry& entry = impl_->EntryAt(at);
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
  return impl_->files[at.shard]->ReadAt(entry.file_offset + range.begin * bytes_of_one, out);
}

absl::Status CheckpointReader::Impl::ReadColumns(const Location& at, Range range, absl::Span<char> out) const {
  const SafetensorsEntry& entry = EntryAt(at);
  const RandomAccessFile& file = *files[at.shard];
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
  const SafetensorsEntry& entry = impl_->EntryAt(at);
  if (static_cast<int64_t>(out.size()) != entry.num_bytes) {
    return absl::InvalidArgumentError(
        Concat("buffer has the wrong size: tensor=", tensor, " want=", entry.num_bytes, " got=", out.size()));
  }
  return impl_->files[at.shard]->ReadAt(entry.file_offset, out);
}

absl::StatusOr<std::string> CheckpointReader::Digest() const {
  Sha256 sha;
  // Every part is preceded by its length, so that no two checkpoints can run together to the same bytes.
  const auto add = [&sha](std::string_view part) {
    sha.Update(Concat(part.size(), "\n"));
    sha.Update(part);
  };
  add(impl_->config_text);
  for (const Shard& shard : impl_->shards) {
    add(shard.file_name);
    add(Concat(shard.file_size));
    add(shard.header.raw_json);
  }
  return sha.Finish();
}

}  // namespace bearing::sharding
