#include "worker/edit/edit_command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "sharding/status_macros.h"
#include "sharding/weight_files.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/edit_checkpoint.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/edit_record.h"
#include "worker/edit/lora_adapter.h"
#include "worker/edit/search_point.h"
#include "worker/edit/strength_flags.h"
#include "worker/edit/vector_forms.h"

namespace bearing::edit {
namespace {

// What the command line and the files say, before the model is looked at.
struct EditRequest {
  EditSpec spec;
  std::vector<DirectionInput> inputs;
  std::optional<int64_t> layer;  // At which the first direction was read.
  std::string model_digest;      // What the model must have; empty = any.
  double added_factor = 1.0;     // What a control vector multiplies with.
};

// A point of a search is an edit by itself.
absl::Status CheckSearchFlags(const EditCommandOptions& options) {
  if (options.search.empty()) {
    if (options.directions.empty()) return absl::InvalidArgumentError("--direction is needed, or --search with --point");
    return options.point < 0 ? absl::OkStatus() : absl::InvalidArgumentError("--point needs --search");
  }
  if (options.point < 0) return absl::InvalidArgumentError("--search needs --point: the number of a point in the file");
  const std::pair<const char*, bool> others[] = {
      {"--direction", !options.directions.empty()},           {"--strength", !options.strengths.empty()},
      {"--layer-strength", !options.layer_strengths.empty()}, {"--layers", !options.layers.empty()},
      {"--negative-mean", !options.negative_mean.empty()},    {"--induce", !options.induce.empty()}};
  for (const auto& [flag, given] : others) {
    if (given) return absl::InvalidArgumentError(absl::StrCat(flag, ": a point of a search says this itself; leave it out"));
  }
  return absl::OkStatus();
}

absl::StatusOr<EditRequest> ReadRequest(const EditCommandOptions& options) {
  EditRequest request;
  EditSpec& spec = request.spec;
  BEARING_RETURN_IF_ERROR(CheckSearchFlags(options));
  if (!options.search.empty()) {
    BEARING_ASSIGN_OR_RETURN(SearchPoint point, ReadSearchPoint(options.search, options.point, &spec));
    request.inputs.push_back(std::move(point.input));
    request.model_digest = std::move(point.model_digest);
  }
  BEARING_RETURN_IF_ERROR(ParseStrengths({options.strengths, options.layer_strengths, options.layers}, &spec));
  for (const std::string& path : options.directions) {
    BEARING_ASSIGN_OR_RETURN(DirectionInput input, ReadDirectionInput(path));
    request.inputs.push_back(std::move(input));
  }
  const DirectionInput& first = request.inputs.front();
  request.layer = options.layer >= 0 ? std::optional(options.layer) : first.Integer("layer");
  request.added_factor = spec.strength;
  if (!options.induce.empty()) {
    BEARING_ASSIGN_OR_RETURN(const double factor, ParseStrength("--induce", options.induce));
    if (!request.layer) return absl::InvalidArgumentError("--induce needs --layer: the direction file does not name its layer");
    request.added_factor = factor;
    if (options.form == "checkpoint") {
      spec.addition = Addition{*request.layer, first.added()};
      for (double& value : spec.addition->vector) value *= factor;
    } else if (options.form == "lora") {
      return absl::UnimplementedError("--induce: an addition is no product of matrices: use --form checkpoint");
    }
  }
  // Directions and strengths of a point are there already.
  if (!spec.addition && options.search.empty()) {
    for (const DirectionInput& input : request.inputs) {
      spec.directions.insert(spec.directions.end(), input.directions.begin(), input.directions.end());
    }
    if (!options.negative_mean.empty()) {
      BEARING_ASSIGN_OR_RETURN(const std::vector<double> mean,
                               ReadNegativeMean(options.negative_mean, request.layer, first.Integer("position")));
      for (std::vector<double>& direction : spec.directions) {
        BEARING_ASSIGN_OR_RETURN(direction, WithoutSharedPart(direction, mean));
      }
    }
  }
  spec.preserve_norms = options.preserve_norms;
  spec.keep_tied = options.keep_tied;
  spec.projector = options.projector;
  spec.quantized = options.quantized == "bfloat16" ? QuantizedOutput::kBfloat16 : QuantizedOutput::kKeep;
  return request;
}

RecordInputs RecordOf(const EditCommandOptions& options, const EditRequest& request, const std::string& digest) {
  RecordInputs inputs;
  inputs.version = options.version;
  const std::filesystem::path model = std::filesystem::absolute(options.model).lexically_normal();
  inputs.base_model = (model.has_filename() ? model : model.parent_path()).filename().string();
  inputs.base_model_digest = digest;
  const auto concept_name = request.inputs.front().metadata.find("concept");
  if (concept_name != request.inputs.front().metadata.end()) inputs.concept_name = concept_name->second;
  inputs.direction = nlohmann::json::array();
  for (const DirectionInput& input : request.inputs) {
    inputs.direction.push_back({{"sha256", input.sha256}, {"metadata", input.metadata}});
  }
  inputs.more = {{"projected", !options.negative_mean.empty()}};
  return inputs;
}

// One line on standard error that is overwritten, at most ten times a second.
class EditProgress {
 public:
  explicit EditProgress(bool show) : show_(show && isatty(STDERR_FILENO) != 0) {}
  ~EditProgress() {
    if (shown_) std::fputc('\n', stderr);
  }

  absl::Status Show(const char* what, int64_t done, int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (!show_ || (done < total && now - last_ < std::chrono::milliseconds(100))) return absl::OkStatus();
    last_ = now;
    shown_ = true;
    std::fprintf(stderr, "\r%-7s %5.1f %% of %.2f GB", what,
                 total > 0 ? 100.0 * static_cast<double>(done) / static_cast<double>(total) : 100.0,
                 static_cast<double>(total) / 1e9);
    std::fflush(stderr);
    return absl::OkStatus();
  }

 private:
  const bool show_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_;
};

nlohmann::json PlanJson(const EditPlan& plan) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const auto& [index, change] : plan.edits) {
    if (change.kind == TensorEdit::Kind::kFp8Scales || change.kind == TensorEdit::Kind::kMxfp4Scales) continue;
    const sharding::OutputTensor& tensor = plan.copy.tensors[index];
    tensors.push_back({{"tensor", tensor.name},
                       {"file", plan.copy.files[tensor.file].name},
                       {"shape", tensor.shape},
                       {"dtype", std::string(sharding::DTypeName(tensor.dtype))},
                       {"component", std::string(sharding::ComponentName(change.component))},
                       {"layer", change.layer},
                       {"strength", change.strength},
                       {"writes", change.kind == TensorEdit::Kind::kConstant ? "bias"
                                  : change.by_columns                        ? "columns"
                                                                             : "rows"}});
  }
  return {
      {"family", plan.model.family}, {"can_run", plan.model.can_run}, {"untied_embeddings", plan.untied}, {"tensors", tensors}};
}

void PrintPlan(const EditPlan& plan, bool as_json) {
  const nlohmann::json document = PlanJson(plan);
  if (as_json) {
    std::cout << document.dump(1) << '\n';
    return;
  }
  for (const nlohmann::json& tensor : document["tensors"]) {
    std::cout << absl::StreamFormat("%-64s %-24s %-5s %-10s strength %g\n", tensor["tensor"].get<std::string>(),
                                    tensor["shape"].dump(), tensor["dtype"].get<std::string>(),
                                    tensor["component"].get<std::string>(), tensor["strength"].get<double>());
  }
  std::cout << absl::StreamFormat("%d tensors would change in %d files of a %s model%s\n", document["tensors"].size(),
                                  plan.copy.files.size(), plan.model.family,
                                  plan.untied ? "; its embeddings would be untied" : "");
}

void PrintOutcome(const EditCommandOptions& options, const EditPlan& plan, const EditOutcome& outcome) {
  const double bytes = static_cast<double>(outcome.bytes_written - outcome.bytes_kept);
  if (options.json) {
    nlohmann::json document = {{"out", options.out},
                               {"edited_tensors", plan.edited_tensors.size()},
                               {"bytes_written", outcome.bytes_written},
                               {"bytes_cloned", outcome.bytes_cloned},
                               {"bytes_kept", outcome.bytes_kept},
                               {"files_kept", outcome.files_kept},
                               {"write_seconds", outcome.write_seconds},
                               {"verify_seconds", outcome.verify_seconds},
                               {"peak_memory_bytes", outcome.peak_memory_bytes},
                               {"untied_embeddings", plan.untied}};
    if (!outcome.checked.empty()) {
      const nlohmann::json verification = VerificationJson(outcome);
      for (const char* const key :
           {"largest_residue", "largest_residue_tensor", "all_finite", "quantization_error", "logits"}) {
        if (verification.contains(key)) document[key] = verification[key];
      }
    }
    std::cout << document.dump(1) << '\n';
    return;
  }
  std::cout << absl::StreamFormat("%d tensors edited, %.2f GB written in %.1f s (%.2f GB/s)\n", plan.edited_tensors.size(),
                                  bytes / 1e9, outcome.write_seconds, bytes / 1e9 / std::max(outcome.write_seconds, 1e-9));
  if (outcome.bytes_kept > 0) {
    std::cout << absl::StreamFormat("kept from an earlier run: %.2f GB, %d of %d files whole\n",
                                    static_cast<double>(outcome.bytes_kept) / 1e9, outcome.files_kept, plan.copy.files.size());
  }
  if (!outcome.checked.empty()) {
    const nlohmann::json verification = VerificationJson(outcome);
    std::cout << absl::StreamFormat("read back in %.1f s: largest residue %.2e (%s)\n", outcome.verify_seconds,
                                    verification["largest_residue"].get<double>(),
                                    verification["largest_residue_tensor"].is_null()
                                        ? "none measured"
                                        : verification["largest_residue_tensor"].get<std::string>());
    if (!outcome.logits.is_null()) {
      std::cout << absl::StreamFormat("logits differ from ablation by at most %.2e, from the original by %.2e\n",
                                      outcome.logits["max_logit_difference_to_ablation"].get<double>(),
                                      outcome.logits["max_logit_difference_to_baseline"].get<double>());
    }
    if (verification.contains("quantization_error")) {
      std::cout << absl::StreamFormat("re-quantization error %.2e\n", verification["quantization_error"]["all"].get<double>());
    }
  }
  std::cout << options.out << '\n';
}

// Of parts that go to a folder: a matrix and some smaller parts. More of them at once is no faster, and memory that a process
// has not touched before is slow.
constexpr int64_t kFolderMemoryBytes = int64_t{224} << 20;

int ThreadsOf(const EditCommandOptions& options, int ranks) {
  if (options.threads > 0) return options.threads;
  // Two more than cores: while these wait for the disk, the others compute.
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::clamp(cores / std::max(1, ranks) + 2, 3, 4);
}

absl::Status WriteForm(const EditCommandOptions& options, const EditRequest& request, const sharding::WeightFiles& source,
                       const EditPlan& plan, const RecordInputs& inputs) {
  if (options.form == "lora") return WriteLora(source, plan, request.spec, inputs, options.out);
  if (options.form == "control-vector") {
    if (!request.layer) {
      return absl::InvalidArgumentError("--form control-vector needs --layer: the direction file does not name its layer");
    }
    BEARING_RETURN_IF_ERROR(
        WriteControlVector(plan.model, request.inputs.front().added(), *request.layer, request.added_factor, options.out));
    return absl::OkStatus();
  }
  return WriteDirectionFile(plan, request.inputs.front(), options.out);
}

absl::Status CanCheckLogits(const EditCommandOptions& options, const EditRequest& request, const EditPlan& plan) {
  if (options.no_verify) return absl::InvalidArgumentError("--check-logits cannot be had with --no-verify");
  if (!request.spec.IsWholeRemoval()) {
    return absl::InvalidArgumentError(
        "--check-logits compares with ablation, and needs an edit that removes all of the direction everywhere");
  }
  if (!plan.model.can_run) {
    return absl::UnimplementedError(
        absl::StrCat("--check-logits: models of this family can be edited, but not run: family=", plan.model.family));
  }
  if (options.keep_tied && plan.model.tied_embeddings && !plan.untied) {
    return absl::InvalidArgumentError("--check-logits: with --keep-tied the output changes too, and differs from ablation");
  }
  return absl::OkStatus();
}

absl::Status Edit(const RankGroup& group, const EditCommandOptions& options, const sharding::WeightFiles& source,
                  const WriteCheckpoint& write, const CheckLogits& check) {
  const auto& agree = group.agree;
  const absl::StatusOr<EditRequest> request = ReadRequest(options);
  BEARING_RETURN_IF_ERROR(agree(request.status()));
  const absl::StatusOr<EditPlan> plan = MakeEditPlan(source, request->spec);
  BEARING_RETURN_IF_ERROR(agree(plan.status()));
  const bool is_rank0 = group.rank == 0;
  if (options.dry_run) {
    if (is_rank0) PrintPlan(*plan, options.json);
    return absl::OkStatus();
  }
  const absl::StatusOr<std::string> digest = source.Digest();
  BEARING_RETURN_IF_ERROR(agree(digest.status()));
  if (!request->model_digest.empty() && request->model_digest != *digest) {
    return absl::FailedPreconditionError(
        absl::StrCat("--search: the search was of another model: searched=", request->model_digest, " model=", *digest));
  }
  const RecordInputs inputs = RecordOf(options, *request, *digest);
  if (options.form != "checkpoint") {
    const absl::Status written = is_rank0 ? WriteForm(options, *request, source, *plan, inputs) : absl::OkStatus();
    BEARING_RETURN_IF_ERROR(agree(written));
    if (is_rank0) std::cout << options.out << '\n';
    return absl::OkStatus();
  }

  if (options.check_logits) BEARING_RETURN_IF_ERROR(CanCheckLogits(options, *request, *plan));
  EditProgress progress(is_rank0 && !options.no_progress);
  EditOptions run;
  run.threads = ThreadsOf(options, group.ranks);
  run.verify = !options.no_verify;
  if (!write) run.memory_bytes = kFolderMemoryBytes;
  run.version = options.version;
  run.overwrite = options.overwrite;
  run.progress = [&](const char* what, int64_t done, int64_t total) { return progress.Show(what, done, total); };
  if (options.check_logits && check) {
    run.check = [&](const std::string& staged) { return check(staged, *plan->basis); };
  }
  const WriteCheckpoint write_folder = [&](const CheckpointTask& task) {
    return EditCheckpoint(source, task.plan, options.out, group, task.options,
                          [&](const EditOutcome& found, const std::string& folder) {
                            return WriteRecord(task.plan, task.spec, found, task.record, folder, /*with_manifest=*/true);
                          });
  };
  BEARING_ASSIGN_OR_RETURN(const EditOutcome outcome, (write ? write : write_folder)({*plan, request->spec, inputs, run}));
  if (is_rank0) PrintOutcome(options, *plan, outcome);
  return absl::OkStatus();
}

}  // namespace

void AddEditOptions(CLI::App& command, EditCommandOptions& options) {
  command.add_option("--model", options.model, "Model folder")->required();
  command
      .add_option("--direction", options.directions,
                  "Direction file (safetensors or direction.pt); several are removed as one basis")
      ->allow_extra_args(false);
  command.add_option("--search", options.search, "search.json of `bearing search`, instead of a direction");
  command.add_option("--point", options.point, "Number of its point");
  command.add_option("--out", options.out, "Folder or file to write");
  command.add_option("--form", options.form, "What is written")
      ->check(CLI::IsMember({"checkpoint", "lora", "control-vector", "direction"}))
      ->capture_default_str();
  command.add_option("--quantized", options.quantized, "What becomes of MXFP4 weights")
      ->check(CLI::IsMember({"keep", "bfloat16"}))
      ->capture_default_str();
  command.add_option("--strength", options.strengths, "Share to remove: NUMBER, or COMPONENT=NUMBER (repeatable)")
      ->allow_extra_args(false);
  command.add_option("--layers", options.layers, "Only these layers, FIRST-LAST");
  command.add_option("--layer-strength", options.layer_strengths, "LAYER=NUMBER (repeatable)")->allow_extra_args(false);
  command.add_option("--negative-mean", options.negative_mean, "Remove from the direction what it shares with this mean");
  command.add_option("--induce", options.induce, "Add the direction times this factor instead of removing it");
  command.add_option("--layer", options.layer, "Layer of the direction, where its file does not say");
  command.add_option("--threads", options.threads, "Threads a rank");
  command.add_flag("--preserve-norms", options.preserve_norms, "Scale what is written back to its norm");
  command.add_flag("--keep-tied", options.keep_tied, "Leave a tied embedding tied");
  command.add_flag("--projector", options.projector, "Edit the image projector too");
  command.add_flag("--no-verify", options.no_verify, "Do not read the result back");
  command.add_flag("--check-logits", options.check_logits, "Compare logits with those of the original under ablation");
  command.add_flag("--overwrite", options.overwrite, "Replace a model that is at --out");
  command.add_flag("--dry-run", options.dry_run, "List the tensors that would change");
  command.add_flag("--no-progress", options.no_progress, "Show no progress");
  command.add_flag("--json", options.json, "Print JSON");
}

absl::Status RunEditCommand(const RankGroup& group, const EditCommandOptions& options, const sharding::WeightFiles& source,
                            const WriteCheckpoint& write, const CheckLogits& check) {
  try {
    return Edit(group, options, source, write, check);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace bearing::edit
