#include "worker/edit/edit_record.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "absl/strings/str_format.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::edit {
namespace {

// A YAML text that is none of YAML's own words or marks.
std::string Quoted(const std::string& text) { return nlohmann::json(text).dump(); }

}  // namespace

nlohmann::json SettingsJson(const EditSpec& spec) {
  nlohmann::json settings = {{"strength", spec.strength},
                             {"first_layer", spec.first_layer},
                             {"last_layer", nullptr},
                             {"components", nlohmann::json::object()},
                             {"layers", nlohmann::json::object()},
                             {"preserve_norms", spec.preserve_norms},
                             {"keep_tied", spec.keep_tied},
                             {"projector", spec.projector},
                             {"quantized", spec.quantized == QuantizedOutput::kKeep ? "keep" : "bfloat16"},
                             {"directions", spec.directions.size()}};
  if (spec.last_layer) settings["last_layer"] = *spec.last_layer;
  for (const auto& [component, strength] : spec.components) {
    settings["components"][std::string(sharding::ComponentName(component))] = strength;
  }
  for (const auto& [layer, strength] : spec.layers) settings["layers"][std::to_string(layer)] = strength;
  if (spec.addition) settings["added_at_layer"] = spec.addition->layer;
  return settings;
}

std::string OperationText(const EditSpec& spec) {
  if (spec.IsWholeRemoval() && spec.directions.size() == 1) {
    return "directional ablation written into the weights: W' = W - r r^T W";
  }
  std::string text;
  if (!spec.directions.empty()) {
    text =
        "directional ablation written into the weights: W' = W - s B B^T W, B an orthonormal basis of the directions, s the "
        "strength of the tensor";
    if (spec.preserve_norms) text += "; then each written vector is scaled back to its norm";
  }
  if (spec.addition) text += Concat(text.empty() ? "" : "; ", "a vector added to the residual stream as a bias");
  return text;
}

nlohmann::json VerificationJson(const EditOutcome& outcome) {
  nlohmann::json tensors = nlohmann::json::array();
  double largest = 0;
  nlohmann::json worst;
  bool finite = true;
  for (const FileCheck& file : outcome.checked) {
    for (const TensorCheck& tensor : file.tensors) {
      tensors.push_back({{"tensor", tensor.tensor}, {"residue", tensor.residue}});
      finite = finite && tensor.finite;
      if (worst.is_null() || tensor.residue > largest) {
        largest = tensor.residue;
        worst = tensor.tensor;
      }
    }
  }
  nlohmann::json result = {{"edited_tensors", tensors.size()},
                           {"largest_residue", largest},
                           {"largest_residue_tensor", worst},
                           {"all_finite", finite},
                           {"tensors", tensors}};
  if (!outcome.logits.is_null()) result["logits"] = outcome.logits;
  double error = 0;
  double all = 0;
  nlohmann::json quantized = nlohmann::json::object();
  for (const auto& [weight, sums] : outcome.quantization_errors) {
    error += sums.error;
    all += sums.all;
    quantized[weight] = sums.all > 0 ? std::sqrt(sums.error / sums.all) : 0.0;
  }
  if (!quantized.empty()) {
    result["quantization_error"] = {{"all", all > 0 ? std::sqrt(error / all) : 0.0}, {"tensors", quantized}};
  }
  return result;
}

nlohmann::json RecordJson(const EditPlan& plan, const EditSpec& spec, const EditOutcome& outcome, const RecordInputs& inputs) {
  nlohmann::json record = {{"format", "bearing/edit/v1"},          {"bearing_version", inputs.version},
                           {"concept", inputs.concept_name},       {"operation", OperationText(spec)},
                           {"base_model", inputs.base_model},      {"base_model_digest", inputs.base_model_digest},
                           {"family", plan.model.family},          {"direction", inputs.direction},
                           {"settings", SettingsJson(spec)},       {"untied_embeddings", plan.untied},
                           {"edited_tensors", plan.edited_tensors}};
  if (!outcome.checked.empty()) record["verification"] = VerificationJson(outcome);
  if (inputs.more.is_object()) record.update(inputs.more);
  return record;
}

std::string CardText(const EditPlan& plan, const EditSpec& spec, const RecordInputs& inputs) {
  const std::string what = spec.directions.empty()
                               ? "with a direction added"
                               : Concat("with the ", inputs.concept_name.empty() ? "given" : inputs.concept_name, " direction",
                                        spec.directions.size() > 1 ? "s" : "", " removed");
  return absl::StrFormat(
      "---\nbase_model: %s\nbase_model_relation: finetune\nlibrary_name: transformers\npipeline_tag: text-generation\n"
      "tags:\n- bearing\n- directional-ablation\n---\n\n# %s, %s\n\n"
      "The weights of this checkpoint were edited by Bearing %s: %s. %d tensors that write to the residual stream were "
      "changed; every other byte is that of the base model.%s\n\n%s"
      "Digest of the base checkpoint: `%s`. The same facts for programs are in `bearing.json`. The licence of the base model "
      "applies.\n\nThis edit changes the model's behaviour on purpose. It is meant for research on interpretability and "
      "safety; whoever deploys it is responsible for what it says.\n",
      Quoted(inputs.base_model), inputs.base_model, what, inputs.version, OperationText(spec), plan.edited_tensors.size(),
      plan.untied ? " The tied unembedding was kept as it was, as a tensor of its own." : "", inputs.card_text,
      inputs.base_model_digest);
}

std::string RecordText(const EditPlan& plan, const EditSpec& spec, const EditOutcome& outcome, const RecordInputs& inputs) {
  return RecordJson(plan, spec, outcome, inputs).dump(1) + "\n";
}

std::string ManifestText(const EditPlan& plan, const EditSpec& spec, const EditOutcome& outcome, const RecordInputs& inputs,
                         std::vector<FileCheck> files) {
  std::sort(files.begin(), files.end(), [](const FileCheck& a, const FileCheck& b) { return a.name < b.name; });
  nlohmann::json listed = nlohmann::json::array();
  for (const FileCheck& file : files) {
    listed.push_back({{"name", file.name}, {"size", file.size}, {"sha256", nullptr}});
    if (!file.sha256.empty()) listed.back()["sha256"] = file.sha256;
  }
  nlohmann::json manifest = {
      {"format", "bearing-manifest/1"},
      {"model_digest", inputs.base_model_digest},
      {"provenance",
       {{"bearing_version", inputs.version},
        {"model", {{"name", inputs.base_model}, {"digest", inputs.base_model_digest}, {"family", plan.model.family}}},
        {"direction", inputs.direction},
        {"settings", SettingsJson(spec)}}},
      {"files", listed}};
  if (!outcome.checked.empty()) manifest["verification"] = VerificationJson(outcome);
  return manifest.dump(1) + "\n";
}

absl::Status WriteRecord(const EditPlan& plan, const EditSpec& spec, const EditOutcome& outcome, const RecordInputs& inputs,
                         const std::string& folder, bool with_manifest) {
  BEARING_RETURN_IF_ERROR(sharding::WriteNewFile(Concat(folder, "/bearing.json"), RecordText(plan, spec, outcome, inputs)));
  BEARING_RETURN_IF_ERROR(sharding::WriteNewFile(Concat(folder, "/README.md"), CardText(plan, spec, inputs)));
  if (!with_manifest) return absl::OkStatus();
  std::map<std::string, const FileCheck*> checked;
  for (const FileCheck& check : outcome.checked) checked.emplace(check.name, &check);
  std::vector<std::string> names = outcome.files;
  names.insert(names.end(), {"README.md", "bearing.json"});
  std::vector<FileCheck> files;
  for (const std::string& name : names) {
    if (const auto known = checked.find(name); known != checked.end()) {
      files.push_back({.name = name, .size = known->second->size, .sha256 = known->second->sha256, .tensors = {}});
      continue;
    }
    const std::string path = Concat(folder, "/", name);
    BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::OpenForReading(path));
    FileCheck check{.name = name, .size = 0, .sha256 = {}, .tensors = {}};
    BEARING_ASSIGN_OR_RETURN(check.size, sharding::FileSize(file, path));
    // Weights that were not read back are not read for this either.
    if (!name.ends_with(".safetensors")) {
      BEARING_ASSIGN_OR_RETURN(check.sha256, sharding::Sha256OfFile(path));
    }
    files.push_back(std::move(check));
  }
  return sharding::WriteNewFile(Concat(folder, "/manifest.json"), ManifestText(plan, spec, outcome, inputs, std::move(files)));
}

}  // namespace bearing::edit
