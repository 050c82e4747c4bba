// What an edited copy of a checkpoint looks like on disk before any byte is written: its files, and for every tensor where its
// bytes go and where the unedited ones come from.
//
// Pure functions of the source folder; thread-safe.
#ifndef BEARING_SHARDING_COPY_PLAN_H_
#define BEARING_SHARDING_COPY_PLAN_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "sharding/param_layout.h"
#include "sharding/weight_files.h"

namespace bearing::sharding {

struct OutputTensor {
  std::string name;
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;
  size_t file = 0;  // In CopyPlan::files.
  int64_t offset = 0;
  int64_t num_bytes = 0;
  // Where its bytes are when it is not edited; none for a tensor that the source does not have.
  struct Source {
    size_t shard = 0;  // In WeightFiles::shards().
    int64_t offset = 0;
  };
  std::optional<Source> source;
};

struct CopyPlan {
  struct File {
    std::string name;
    std::string framed_header;  // The first bytes of the file.
    int64_t size = 0;
    std::optional<size_t> same_as;  // The shard with the same bytes, if none of its tensors is edited.
  };
  std::vector<File> files;                        // Weight files.
  std::vector<OutputTensor> tensors;              // In the order of files and bytes.
  std::map<std::string, std::string> side_texts;  // Rewritten side files: name in the folder, text.
};

// How the copy differs from the source beyond the values of tensors. A file without a change keeps its header byte for byte.
struct CopyChanges {
  // Give a tied model an unembedding of its own with the bytes of its embedding.
  bool untie = false;
  std::string embedding;
  std::string unembedding;
  // By stored name: the tensor that stands in its place. It has no source.
  std::map<std::string, DiskTensor> replaced;
  std::set<std::string> removed;
  // By stored name: tensors behind it. They have no source.
  std::map<std::string, std::vector<DiskTensor>> added;
  // Keys of config.json (and of its text_config, where that has them) to set; null removes.
  std::map<std::string, nlohmann::json> config;
};

// FailedPrecondition when the source already stores an unembedding that cannot hold the embedding.
absl::StatusOr<CopyPlan> MakeCopyPlan(const WeightFiles& source, const CopyChanges& changes);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_COPY_PLAN_H_
