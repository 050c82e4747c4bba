// Which files of a model folder hold its weights: model.safetensors alone, or the shards that
// model.safetensors.index.json names. As in transformers, the single file wins when both are there.
#ifndef BEARING_SHARDING_CHECKPOINT_INDEX_H_
#define BEARING_SHARDING_CHECKPOINT_INDEX_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/random_access_file.h"

namespace bearing::sharding {

inline constexpr std::string_view kSingleFileName = "model.safetensors";
inline constexpr std::string_view kIndexFileName = "model.safetensors.index.json";

struct CheckpointIndex {
  bool is_sharded = false;
  std::vector<std::string> files;                 // Sorted names in the folder.
  std::map<std::string, std::string> weight_map;  // Tensor to file; empty without an index.
};

// Parses an index; `path` is only for messages. DataLoss as below.
absl::StatusOr<CheckpointIndex> ParseCheckpointIndex(std::string_view text, const std::string& path);

// `shards` is where the weights are; the index is in `model_dir`. NotFound when there is neither; DataLoss for an index that is
// malformed or names a file outside the folder.
absl::StatusOr<CheckpointIndex> FindCheckpointIndex(const std::string& model_dir, const FileFolder& shards);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_CHECKPOINT_INDEX_H_
