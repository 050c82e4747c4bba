// Writes an edited copy of a checkpoint folder: same shard names, tensor order and header metadata; every byte that is not
// edited is copied as it is. The copy is staged in `<out>.partial` and renamed to `<out>` by Commit, after fsync; without
// Commit no `<out>` appears, and the staged folder is removed by the next Prepare.
//
// When a tied embedding is untied, one shard more is written (or the single file gains a tensor at its end), the index is
// rewritten and config.json gets "tie_word_embeddings": false. The unembedding is then copied like any tensor that is not
// edited, with the bytes of the source's embedding.
//
// Sharing work over ranks (processes that see the same folders): every rank constructs the same writer before the first of
// them commits. One rank calls Prepare; after a barrier all call CopyUnedited with the same list of edited tensors, and
// WriteRows for disjoint rows of those, then Sync; after a barrier one calls Commit.
//
// Thread-safe after Prepare. Errors: AlreadyExists when `<out>` exists; NotFound for an unknown tensor or when nothing is
// staged; ResourceExhausted for a full disk; DataLoss when the source shrank.
#ifndef BEARING_SHARDING_CHECKPOINT_WRITER_H_
#define BEARING_SHARDING_CHECKPOINT_WRITER_H_

#include <cstdint>
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

  // Copies the tensors that are not named in `edited`: the calling rank's part when their bytes are cut over `ranks`.
  absl::Status CopyUnedited(const std::vector<std::string>& edited, int rank, int ranks);

  // Writes rows [row_begin, row_begin + rows) of a tensor, in its disk dtype. A 1-axis tensor counts as one row.
  absl::Status WriteRows(std::string_view tensor, int64_t row_begin, absl::Span<const char> bytes);

  // fsync of everything. Each rank that wrote.
  absl::Status Sync();

  // Renames `<out>.partial` to `<out>`. One rank, after all others have synced.
  absl::Status Commit();

  // Names of the shard files, the index and the side files, relative to the folder, sorted.
  std::vector<std::string> files() const;

 private:
  struct Impl;
  explicit CheckpointWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_CHECKPOINT_WRITER_H_
