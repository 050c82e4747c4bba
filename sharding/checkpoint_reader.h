// A Hugging Face model folder, opened for reading: shards found through the index, headers parsed, layout matched. Opening
// reads no weights. Tensors (or ranges of rows or columns) are then read into the caller's memory: by pread, or, where the
// shards are elsewhere, by what opened them.
//
// Thread-safe after Open. Owns one open file a shard.
#ifndef BEARING_SHARDING_CHECKPOINT_READER_H_
#define BEARING_SHARDING_CHECKPOINT_READER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/model_config.h"
#include "sharding/param_layout.h"
#include "sharding/shard_plan.h"
#include "sharding/weight_files.h"

namespace bearing::sharding {

class CheckpointReader {
 public:
  // InvalidArgument / Unimplemented from the config; NotFound for a missing folder, config or shard; DataLoss for a bad header,
  // a truncated shard, a tensor of the index that its shard lacks, or one stored twice; FailedPrecondition from the layout.
  static absl::StatusOr<std::unique_ptr<CheckpointReader>> Open(const std::string& model_dir);

  // Of a model whose config and index are in `model_dir` and whose shards are in `shards`, which is used only for opening.
  static absl::StatusOr<std::unique_ptr<CheckpointReader>> Open(const std::string& model_dir, const FileFolder& shards);
  ~CheckpointReader();

  const ModelConfig& config() const;
  const ParamLayout& layout() const;
  // The files without what the config makes of them.
  const WeightFiles& weights() const;
  const std::string& model_dir() const;  // Holds config.json and the other small files; the shards may be elsewhere (file()).

  // Shard file names in the folder, sorted, and their headers.
  using Shard = WeightFiles::Shard;
  const std::vector<Shard>& shards() const;

  // Where a tensor is: index into shards() and into that header's entries. NotFound naming it.
  using Location = WeightFiles::Location;
  absl::StatusOr<Location> Find(std::string_view tensor) const;
  const SafetensorsEntry& entry(const Location& at) const;

  // Reads the part `range` of axis `axis` (0 or 1) of a tensor of 1 or 2 axes, packed, in its disk dtype. `out` must hold
  // exactly the bytes of the part. Rows are read in one call; columns by reading row blocks and copying the part out, with
  // bounded scratch.
  absl::Status ReadSlice(std::string_view tensor, int axis, Range range, absl::Span<char> out) const;

  // A whole tensor.
  absl::Status Read(std::string_view tensor, absl::Span<char> out) const;

  // sha256 (hex) over config.json and, per shard in name order, name, size and header bytes: identifies the checkpoint without
  // reading the weights. Recorded as "model_digest".
  absl::StatusOr<std::string> Digest() const;

 private:
  struct Impl;
  explicit CheckpointReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_CHECKPOINT_READER_H_
