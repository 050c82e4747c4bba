// `edit`: a direction written into the weights of a checkpoint folder, without a server and without a forward pass. The
// options, what they ask for, and what is printed; the work is that of the other files here.
#ifndef BEARING_WORKER_EDIT_EDIT_COMMAND_H_
#define BEARING_WORKER_EDIT_EDIT_COMMAND_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/weight_files.h"
#include "worker/edit/edit_checkpoint.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/edit_record.h"
#include "worker/edit/edit_spec.h"

namespace CLI {
class App;
}

namespace bearing::edit {

struct EditCommandOptions {
  std::string model;
  std::vector<std::string> directions;
  std::string search;  // search.json: instead of directions and strengths.
  int64_t point = -1;  // Of the search.
  std::string out;
  std::string form = "checkpoint";
  std::string quantized = "keep";            // Or "bfloat16": QuantizedOutput.
  std::vector<std::string> strengths;        // "0.8" or "COMPONENT=0.8".
  std::vector<std::string> layer_strengths;  // "LAYER=0.8".
  std::string layers;                        // "FIRST-LAST" or "LAYER".
  std::string negative_mean;                 // Projected variant.
  std::string induce;                        // Factor of the addition; empty = no addition.
  int64_t layer = -1;                        // Of the addition or control vector; -1 = the direction file's.
  int threads = 0;
  bool preserve_norms = false;
  bool keep_tied = false;
  bool projector = false;
  bool no_verify = false;
  bool overwrite = false;
  bool check_logits = false;
  bool dry_run = false;
  bool no_progress = false;
  bool json = false;
  std::string version;  // Of this program, for the record.
};

// Adds the command's options to a command line.
void AddEditOptions(CLI::App& command, EditCommandOptions& options);

// A checkpoint to write: what, how, and what it says about itself.
struct CheckpointTask {
  const EditPlan& plan;
  const EditSpec& spec;
  const RecordInputs& record;
  const EditOptions& options;
};

// Writes it to a place that this command does not know. Collective; agreed errors.
using WriteCheckpoint = std::function<absl::StatusOr<EditOutcome>(const CheckpointTask& task)>;

// Compares what was written to `staged` with the original under ablation of `basis`, for the record. Collective; agreed errors.
using CheckLogits = std::function<absl::StatusOr<nlohmann::json>(const std::string& staged, const Basis& basis)>;

// Every rank calls it alike, with the files of `options.model`; rank 0 prints. A checkpoint goes to the folder `options.out`,
// or where `write` puts it. Exceptions of libraries come out as Internal.
absl::Status RunEditCommand(const RankGroup& group, const EditCommandOptions& options, const sharding::WeightFiles& source,
                            const WriteCheckpoint& write = {}, const CheckLogits& check = {});

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_EDIT_COMMAND_H_
