#include "sharding/checkpoint_index.h"

#include <set>

#include "sharding/concat.h"
#include "sharding/json_text.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

constexpr int64_t kMaxIndexBytes = 256 << 20;
constexpr size_t kMaxShards = 10'000;

// An index may come from anywhere; it must not make us open files elsewhere.
bool IsPlainShardName(std::string_view name) {
  return name.ends_with(".safetensors") && name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos &&
         !name.starts_with(".");
}

}  // namespace

absl::StatusOr<CheckpointIndex> ParseCheckpointIndex(std::string_view text, const std::string& path) {
  absl::StatusOr<nlohmann::json> document = ParseJsonObject(text, path);
  if (!document.ok()) return absl::DataLossError(document.status().message());
  const auto weight_map = document->find("weight_map");
  if (weight_map == document->end() || !weight_map->is_object() || weight_map->empty()) {
    return absl::DataLossError(Concat("index has no weight_map: file=", path));
  }
  CheckpointIndex index;
  index.is_sharded = true;
  std::set<std::string> files;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string() || !IsPlainShardName(file.get<std::string>())) {
      return absl::DataLossError(Concat("index must name a .safetensors file of its folder: file=", path,
                                        " tensor=", Escaped(tensor), " got=", file.dump()));
    }
    files.insert(file.get<std::string>());
    index.weight_map.emplace(tensor, file.get<std::string>());
  }
  if (files.size() > kMaxShards) return absl::DataLossError(Concat("index names too many files: file=", path));
  index.files.assign(files.begin(), files.end());
  return index;
}

absl::StatusOr<CheckpointIndex> FindCheckpointIndex(const std::string& model_dir, const FileFolder& shards) {
  if (shards.Has(std::string(kSingleFileName))) {
    return CheckpointIndex{.is_sharded = false, .files = {std::string(kSingleFileName)}, .weight_map = {}};
  }

  const std::string path = Concat(model_dir, "/", kIndexFileName);
  const absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxIndexBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(
        Concat("folder has no safetensors weights: want ", kSingleFileName, " or ", kIndexFileName, " folder=", model_dir));
  }
  BEARING_RETURN_IF_ERROR(text.status());
  return ParseCheckpointIndex(*text, path);
}

}  // namespace bearing::sharding
