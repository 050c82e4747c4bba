#include "cli/plan_inputs.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/calibration.h"
#include "cli/mpirun.h"
#include "cli/quantity.h"
#include "jobs/artifacts.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/status_macros.h"
#include "storage/uri.h"

namespace bearing::cli {
namespace {

namespace fs = std::filesystem;

bool HoldsWeights(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") return true;
  }
  return false;
}

// The nearest folder that is there already: where the output will be written.
std::string ExistingFolder(const std::string& output) {
  std::error_code error;
  for (fs::path folder = output; !folder.empty(); folder = folder.parent_path()) {
    if (fs::is_directory(folder, error)) return folder.string();
    if (folder == folder.root_path()) break;
  }
  return "";
}

absl::StatusOr<jobs::Machine> Calibrate(const PlanOptions& options, const bearing::v1::JobSpec& spec, const PlannedModel& model,
                                        const jobs::Workload& workload) {
  CalibrationOptions calibration;
  calibration.config = model.config_path;
  calibration.dtype = spec.model().dtype();
  calibration.write_to = ExistingFolder(spec.output());
  const int64_t most = *std::max_element(options.ranks.begin(), options.ranks.end());
  // No more ranks than cores: a rank of a larger group is one like these, on another machine.
  calibration.ranks = std::min<int64_t>(most, AvailableCores());
  calibration.plan_ranks = options.ranks.size() == 1 ? most : calibration.ranks;
  calibration.threads = options.threads;
  const jobs::PromptLengths& prompts = workload.negative.validation;
  calibration.prefix_tokens = prompts.Prefix(1);
  const int64_t tokens = std::accumulate(prompts.tokens.begin(), prompts.tokens.end(), int64_t{0});
  calibration.prompt_tokens = std::max<int64_t>(1, tokens / std::max<int64_t>(1, prompts.count()) - calibration.prefix_tokens);
  std::cerr << "measuring this machine with " << calibration.ranks << " rank(s) (--machine or --gpu leave this out)\n";
  return MeasureMachine(calibration);
}

absl::Status SetBytes(const char* flag, const std::string& text, double* value) {
  if (text.empty()) return absl::OkStatus();
  const absl::StatusOr<double> bytes = ParseBytes(text);
  if (!bytes.ok()) return absl::InvalidArgumentError(absl::StrCat(flag, ": ", std::string(bytes.status().message())));
  *value = *bytes;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PlannedModel> OpenModel(const PlanOptions& options, const bearing::v1::JobSpec& spec) {
  PlannedModel model;
  BEARING_ASSIGN_OR_RETURN(model.source, storage::ModelSource::Open(spec.model().path(), spec.model().chat_template()));
  model.folder = model.source->folder();
  model.config_path = options.model_config.empty() ? model.folder : options.model_config;
  if (!options.model_config.empty()) {
    BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(options.model_config));
    BEARING_ASSIGN_OR_RETURN(model.config, sharding::ParseModelConfig(text, options.model_config));
  } else if (storage::HasScheme(spec.model().path()) || HoldsWeights(model.folder)) {
    BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<sharding::CheckpointReader> reader, model.source->OpenCheckpoint());
    model.config = reader->config();
    model.layout = reader->layout();
    return model;
  } else {
    BEARING_ASSIGN_OR_RETURN(model.config, sharding::LoadModelConfig(model.folder));
  }
  if (options.stored_dtype == "float32") model.config.dtype = sharding::DType::kF32;
  if (options.stored_dtype == "float16") model.config.dtype = sharding::DType::kF16;
  if (options.stored_dtype == "bfloat16") model.config.dtype = sharding::DType::kBF16;
  model.layout = sharding::ParamLayout::FromConfig(model.config);
  return model;
}

absl::StatusOr<jobs::Workload> CountWork(const PlanOptions& options, const bearing::v1::JobSpec& spec,
                                         const PlannedModel& model) {
  std::unique_ptr<bridge::ChatTokenizer> tokenizer;
  std::error_code error;
  if (fs::exists(fs::path(model.folder) / "tokenizer.json", error)) {
    BEARING_ASSIGN_OR_RETURN(tokenizer, bridge::ChatTokenizer::Load(model.folder, model.source->chat_template()));
  }
  return jobs::MakeWorkload(spec, model.config, tokenizer.get(), options.workload);
}

absl::StatusOr<jobs::Machine> FindMachine(const PlanOptions& options, const bearing::v1::JobSpec& spec,
                                          const PlannedModel& model, const jobs::Workload& workload) {
  jobs::Machine machine;
  if (!options.gpu.empty()) {
    BEARING_ASSIGN_OR_RETURN(machine, jobs::MachineProfile(options.gpu, spec.model().dtype(), options.efficiency));
  } else if (!options.machine.empty()) {
    BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(options.machine));
    BEARING_ASSIGN_OR_RETURN(machine, jobs::ParseMachine(text, options.machine));
    if (machine.dtype != spec.model().dtype()) {
      return absl::InvalidArgumentError(absl::StrCat("--machine was measured with another compute type: file=", machine.dtype,
                                                     " job=", spec.model().dtype()));
    }
  } else {
    BEARING_ASSIGN_OR_RETURN(machine, Calibrate(options, spec, model, workload));
  }
  if (!options.save_machine.empty()) {
    BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(options.save_machine, jobs::MachineJson(machine).dump(1) + "\n"));
  }
  auto memory = static_cast<double>(machine.memory_bytes_per_rank);
  BEARING_RETURN_IF_ERROR(SetBytes("--memory", options.memory, &memory));
  machine.memory_bytes_per_rank = static_cast<int64_t>(memory);
  BEARING_RETURN_IF_ERROR(SetBytes("--network", options.network, &machine.network_bytes_per_s));
  if (!options.disk.empty()) machine.disk_cached_share = machine.disk_cold_bytes_per_s = 0;
  BEARING_RETURN_IF_ERROR(SetBytes("--disk", options.disk, &machine.disk_read_bytes_per_s));
  if (options.ranks_per_node > 0) machine.ranks_per_node = options.ranks_per_node;
  return machine;
}

}  // namespace bearing::cli
