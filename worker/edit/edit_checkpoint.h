// The whole edit of a checkpoint folder into another, by one or several ranks that see the same folders: plan, write, read
// back, describe, commit. Nothing of it runs the model.
//
// Every rank calls EditCheckpoint alike. On the first failure of any rank all leave with its status, and no output appears.
// What was written until then stays in `<out>.partial`: the same edit, run again, keeps the parts whose bytes are still those
// of their checksums, and makes the others.
#ifndef BEARING_WORKER_EDIT_EDIT_CHECKPOINT_H_
#define BEARING_WORKER_EDIT_EDIT_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "sharding/memory_rules.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/rank_group.h"
#include "worker/edit/tensor_editor.h"
#include "worker/edit/verify_files.h"

namespace bearing::edit {

struct EditOptions {
  int threads = 3;
  int64_t memory_bytes = sharding::kEditMemoryBytes;  // Of a rank, for parts in hand.
  bool verify = true;
  std::string version;     // Of this program: another one keeps nothing of what this one began.
  bool overwrite = false;  // Replace a model that is at the output (CheckpointWriter::Existing).
  // Asked when all is written, with the place where the copy is staged (a folder, or an address): what else there is to know
  // of it, for the record. Collective, on the caller's thread; agreed errors.
  std::function<absl::StatusOr<nlohmann::json>(const std::string& staged)> check;
  // Bytes done and in all, of this rank, while it writes ("write") and reads back ("verify"); a bad status stops. One thread at
  // a time, which need not be the caller's.
  std::function<absl::Status(const char*, int64_t, int64_t)> progress;
};

// What was found out, complete on rank 0.
struct EditOutcome {
  std::vector<std::string> files;  // Of the weights, index and side files.
  std::vector<FileCheck> checked;  // In the order of the files; empty without verify.
  std::map<std::string, QuantizationError> quantization_errors;
  int64_t bytes_written = 0;  // Of weight files, all ranks.
  int64_t bytes_kept = 0;     // Of these, what an earlier run had written.
  int64_t files_kept = 0;     // Of the weight files, those that it had written whole.
  int64_t bytes_cloned = 0;
  int64_t peak_memory_bytes = 0;  // Resident, of the largest process, up to here.
  nlohmann::json logits;          // What EditOptions::check found; null without it.
  double write_seconds = 0;
  double verify_seconds = 0;
};

// `describe` runs on rank 0 before the folder gets its name, and may add files to it (the staged folder is its second
// argument).
using Describe = std::function<absl::Status(const EditOutcome&, const std::string&)>;

absl::StatusOr<EditOutcome> EditCheckpoint(const sharding::WeightFiles& source, const EditPlan& plan,
                                           const std::string& out_dir, const RankGroup& group, const EditOptions& options,
                                           const Describe& describe);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_EDIT_CHECKPOINT_H_
