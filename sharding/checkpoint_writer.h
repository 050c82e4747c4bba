// Writes the copy of a checkpoint folder that a CopyPlan describes. The copy is staged in `<out>.partial` and renamed to
// `<out>` by Commit, after fsync; without Commit no `<out>` appears, and the next Prepare starts over, or goes on where the
// staged folder is of the same identity. The process that called Prepare holds a lock on the staged folder until it ends.
//
// Files are written in parts, in any order, by any number of ranks (processes that see the same folders): every rank constructs
// the same writer before the first of them commits. One rank calls Prepare; after a barrier all write parts that together cover
// every byte of every file (the header included) once, then Sync; after a barrier one calls Commit.
//
// Thread-safe after Prepare. Errors: AlreadyExists when `<out>` exists (and may not be replaced), or another process is writing
// it; NotFound when nothing is staged; ResourceExhausted for a full disk; PermissionDenied for a folder that cannot be written;
// DataLoss when the source shrank.
#ifndef BEARING_SHARDING_CHECKPOINT_WRITER_H_
#define BEARING_SHARDING_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/copy_plan.h"
#include "sharding/weight_files.h"

namespace bearing::sharding {

// What to do with a folder that is at the output already. kReplace is for models (a folder with config.json, not the source's)
// and empty folders: it stays as it is until Commit puts the copy in its place in one step.
enum class Existing { kRefuse, kReplace };

class CheckpointWriter {
 public:
  // `source` and `plan` must outlive the writer.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(const WeightFiles* source, const CopyPlan* plan,
                                                                  const std::string& out_dir,
                                                                  Existing existing = Existing::kRefuse);
  ~CheckpointWriter();

  // Makes `<out>.partial`, writes the side files (config, tokenizer, templates, licence), gives the weight files their size and
  // space. Files of `unedited` are cloned where the file system shares blocks. One rank.
  //
  // `identity` stands for every byte of the weight files. True when an earlier run with the same identity prepared the folder:
  // its weight files and notes that are kept (KeptNotePath) are as that run left them. With any other identity, or an empty
  // one, nothing of an earlier run is kept.
  absl::StatusOr<bool> Prepare(const std::set<size_t>& unedited = {}, std::string_view identity = "");

  // The files that Prepare cloned and that need no parts. Every rank, after Prepare.
  absl::StatusOr<std::set<size_t>> ClonedFiles() const;

  // A file of the caller's in the staged folder, which Prepare keeps with the weights and Commit removes.
  std::string KeptNotePath(std::string_view name) const;
  // All that are there.
  absl::StatusOr<std::vector<std::string>> KeptNotes() const;

  // Writes bytes of a file of the plan. Fastest from a DirectBuffer.
  absl::Status WritePart(size_t file, int64_t offset, absl::Span<const char> bytes);

  // fsync of everything. Each rank that wrote.
  absl::Status Sync();

  // Renames `<out>.partial` to `<out>`. One rank, after all others have synced.
  absl::Status Commit();

  const std::string& staged_folder() const;

  // Names of the shard files, the index and the side files, relative to the folder, sorted.
  std::vector<std::string> files() const;

 private:
  struct Impl;
  explicit CheckpointWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_CHECKPOINT_WRITER_H_
