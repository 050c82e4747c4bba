// What an edited checkpoint says about itself: bearing.json and README.md (docs/formats.md, "checkpoint/"), and for a folder
// that is no part of a job's output a manifest. No local path, host or user name goes in.
//
// Pure functions but for the writing.
#ifndef BEARING_WORKER_EDIT_EDIT_RECORD_H_
#define BEARING_WORKER_EDIT_EDIT_RECORD_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "worker/edit/edit_checkpoint.h"
#include "worker/edit/edit_plan.h"

namespace bearing::edit {

struct RecordInputs {
  std::string version;
  std::string concept_name;
  std::string base_model;  // Name of the source folder.
  std::string base_model_digest;
  nlohmann::json direction;  // Where the directions are from.
  nlohmann::json more;       // Further keys of bearing.json.
  std::string card_text;     // Further Markdown of the card.
};

// The strengths, layer range and variants of a spec.
nlohmann::json SettingsJson(const EditSpec& spec);

// What was done, in a sentence, with its formula.
std::string OperationText(const EditSpec& spec);

// What was read back: `largest_residue` and its tensor, `tensors`, `quantization_error`.
nlohmann::json VerificationJson(const EditOutcome& outcome);

nlohmann::json RecordJson(const EditPlan& plan, const EditSpec& spec, const EditOutcome& outcome, const RecordInputs& inputs);
std::string RecordText(const EditPlan& plan, const EditSpec& spec, const EditOutcome& outcome,
                       const RecordInputs& inputs);  // bearing.json
std::string CardText(const EditPlan& plan, const EditSpec& spec, const RecordInputs& inputs);

// manifest.json of a checkpoint that is no part of a job: these files, sorted by name. A file without sha256 was not read.
std::string ManifestText(const EditPlan& plan, const EditSpec& spec, const EditOutcome& outcome, const RecordInputs& inputs,
                         std::vector<FileCheck> files);

// Writes bearing.json and README.md into the staged folder, and the manifest when asked for.
absl::Status WriteRecord(const EditPlan& plan, const EditSpec& spec, const EditOutcome& outcome, const RecordInputs& inputs,
                         const std::string& folder, bool with_manifest);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_EDIT_RECORD_H_
