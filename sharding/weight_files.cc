#include "sharding/weight_files.h"

#include <unordered_map>
#include <utility>

#include "sharding/checkpoint_index.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {

struct WeightFiles::Impl {
  std::string model_dir;
  std::string config_text;
  bool is_sharded = false;
  std::vector<Shard> shards;
  std::vector<std::unique_ptr<RandomAccessFile>> files;  // One a shard.
  std::unordered_map<std::string, Location> locations;

  absl::Status OpenShard(const std::string& file_name, const FileFolder& folder);
  absl::Status CheckIndex(const CheckpointIndex& index) const;
};

absl::Status WeightFiles::Impl::OpenShard(const std::string& file_name, const FileFolder& folder) {
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
absl::Status WeightFiles::Impl::CheckIndex(const CheckpointIndex& index) const {
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
          Concat("tensor of a shard is not in the index: tensor=", Escaped(tensor), " file=", files[at.shard]->name()));
    }
  }
  return absl::OkStatus();
}

WeightFiles::WeightFiles(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WeightFiles::~WeightFiles() = default;

absl::StatusOr<std::unique_ptr<WeightFiles>> WeightFiles::Open(const std::string& model_dir) {
  return Open(model_dir, *MakeLocalFolder(model_dir));
}

absl::StatusOr<std::unique_ptr<WeightFiles>> WeightFiles::Open(const std::string& model_dir, const FileFolder& shards) {
  auto impl = std::make_unique<Impl>();
  impl->model_dir = model_dir;
  BEARING_ASSIGN_OR_RETURN(impl->config_text, ReadWholeFile(Concat(model_dir, "/config.json"), kMaxConfigBytes));
  BEARING_ASSIGN_OR_RETURN(const CheckpointIndex index, FindCheckpointIndex(model_dir, shards));
  impl->is_sharded = index.is_sharded;
  for (const std::string& file_name : index.files) BEARING_RETURN_IF_ERROR(impl->OpenShard(file_name, shards));
  if (index.is_sharded) BEARING_RETURN_IF_ERROR(impl->CheckIndex(index));
  return std::unique_ptr<WeightFiles>(new WeightFiles(std::move(impl)));
}

const std::string& WeightFiles::model_dir() const { return impl_->model_dir; }
const std::string& WeightFiles::config_text() const { return impl_->config_text; }
bool WeightFiles::is_sharded() const { return impl_->is_sharded; }
const std::vector<WeightFiles::Shard>& WeightFiles::shards() const { return impl_->shards; }

const WeightFiles::Location* WeightFiles::Find(std::string_view tensor) const {
  const auto found = impl_->locations.find(std::string(tensor));
  return found == impl_->locations.end() ? nullptr : &found->second;
}

const SafetensorsEntry& WeightFiles::entry(const Location& at) const {
  return impl_->shards[at.shard].header.entries[at.entry];
}

std::vector<DiskTensor> WeightFiles::tensors() const {
  std::vector<DiskTensor> all;
  for (const Shard& shard : impl_->shards) {
    for (const SafetensorsEntry& entry : shard.header.entries) all.push_back({entry.name, entry.dtype, entry.shape});
  }
  return all;
}

absl::Status WeightFiles::Read(size_t shard, int64_t offset, absl::Span<char> out) const {
  return impl_->files[shard]->ReadAt(offset, out);
}

const RandomAccessFile& WeightFiles::file(size_t shard) const { return *impl_->files[shard]; }

absl::StatusOr<std::string> WeightFiles::Digest() const {
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
