// The weight files of a model folder as they are: headers, where each tensor is, and bytes. Knows neither config nor family, so
// that it also opens models that nothing here can run.
//
// Thread-safe after Open.
#ifndef BEARING_SHARDING_WEIGHT_FILES_H_
#define BEARING_SHARDING_WEIGHT_FILES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/param_layout.h"
#include "sharding/random_access_file.h"
#include "sharding/safetensors.h"

namespace bearing::sharding {

class WeightFiles {
 public:
  struct Shard {
    std::string file_name;
    SafetensorsHeader header;
    int64_t file_size = 0;
  };
  struct Location {
    size_t shard = 0;
    size_t entry = 0;
  };

  // NotFound for a missing folder, config or shard; DataLoss for a bad header, a truncated shard, a tensor stored twice, or an
  // index that does not say what the shards hold.
  static absl::StatusOr<std::unique_ptr<WeightFiles>> Open(const std::string& model_dir);

  // Of a model whose config and index are in `model_dir` and whose shards are in `shards`, which is used only for opening.
  static absl::StatusOr<std::unique_ptr<WeightFiles>> Open(const std::string& model_dir, const FileFolder& shards);
  ~WeightFiles();

  const std::string& model_dir() const;    // Holds config.json and the other small files; the shards may be elsewhere (file()).
  const std::string& config_text() const;  // config.json
  bool is_sharded() const;                 // There is an index.
  const std::vector<Shard>& shards() const;

  // nullptr if there is no such tensor.
  const Location* Find(std::string_view tensor) const;
  const SafetensorsEntry& entry(const Location& at) const;
  std::vector<DiskTensor> tensors() const;

  // Fills `out` from `offset` of a shard. DataLoss when it has shrunk.
  absl::Status Read(size_t shard, int64_t offset, absl::Span<char> out) const;

  // The open file of a shard.
  const RandomAccessFile& file(size_t shard) const;

  // The model digest (docs/formats.md).
  absl::StatusOr<std::string> Digest() const;

 private:
  struct Impl;
  explicit WeightFiles(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_WEIGHT_FILES_H_
