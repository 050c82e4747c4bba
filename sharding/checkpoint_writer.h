// Writes an edited copy of a checkpoint folder: same shard names, tensor order and header metadata; every byte that is not
// edited is copied as it is. The copy is staged in `<out>.partial` and renamed to `<out>` by Commit, after fsync.
//
// When a tied embedding is untied, one shard more is written (or the single file gains a tensor), the index is rewritten and
// config.json gets "tie_word_embeddings": false.
//
// Sharing work over ranks: every rank constructs the same writer; `tensors()` lists the edited tensors; ranks call WriteEdited
// for disjoint row ranges. Prepare() is called by one rank before the others write, Commit() by one rank after a barrier.
#ifndef BEARING_SHARDING_CHECKPOINT_WRITER_H_
#define BEARING_SHARDING_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/checkpoint_reader.h"

namespace bearing::sharding {

struct WriterOptions {
  // Write the unembedding of a tied model as a tensor of its own (a copy of the unedited embedding) and untie the config.
  bool untie = true;
};

class CheckpointWriter {
 public:
  // `out_dir` must not exist. `reader` must outlive the writer.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(const CheckpointReader* reader, const std::string& out_dir,
                                                                  const WriterOptions& options);
  ~CheckpointWriter();

  // Makes `<out>.partial` (removing an older one), writes headers and side files (config, tokenizer, templates, licence), sizes
  // the shards. One rank.
  absl::Status Prepare();

  // Copies all bytes of the shards that are not edited by WriteEdited: the calling rank's part when the bytes are cut over
  // `ranks`. Tensors named in `edited` are left out.
  absl::Status CopyUnedited(const std::vector<std::string>& edited, int rank, int ranks);

  // Writes rows [row_begin, row_begin + rows) of a tensor, in its disk dtype. A 1-axis tensor counts as one row.
  absl::Status WriteRows(std::string_view tensor, int64_t row_begin, absl::Span<const char> bytes);

  // fsync of everything. Each rank that wrote.
  absl::Status Sync();

  // Renames `<out>.partial` to `<out>`. One rank, after all others have synced.
  absl::Status Commit();

  // Names of the shard files and side files, relative to the folder; known after Prepare.
  std::vector<std::string> files() const;

 private:
  struct Impl;
  explicit CheckpointWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_CHECKPOINT_WRITER_H_
