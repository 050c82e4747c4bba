// `bearing plan`: what a job will take, before it runs.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/calibration.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/mpirun.h"
#include "cli/plan_text.h"
#include "cli/quantity.h"
#include "cli/spec_source.h"
#include "jobs/artifacts.h"
#include "jobs/plan/plan.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kDefaultRanks = 2;

struct PlanOptions {
  SpecOptions spec;
  std::vector<int64_t> ranks;
  std::string model_config;
  std::string machine;
  std::string save_machine;
  std::string gpu;
  double efficiency = 0.5;
  std::string memory;
  std::string network;
  std::string disk;
  int64_t ranks_per_node = 0;
  int threads = 0;
  jobs::WorkloadOptions workload;
};

// A model without its weights.
struct PlannedModel {
  std::string config_path;  // File or folder.
  std::string folder;
  sharding::ModelConfig config;
  sharding::ParamLayout layout;
};

bool HoldsWeights(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") return true;
  }
  return false;
}

// Of a folder with weights, their headers are checked too, as a run would.
absl::StatusOr<PlannedModel> OpenModel(const PlanOptions& options, const bearing::v1::JobSpec& spec) {
  PlannedModel model;
  model.folder = spec.model().path();
  model.config_path = options.model_config.empty() ? model.folder : options.model_config;
  if (!options.model_config.empty()) {
    BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(options.model_config));
    BEARING_ASSIGN_OR_RETURN(model.config, sharding::ParseModelConfig(text, options.model_config));
  } else if (HoldsWeights(model.folder)) {
    BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<sharding::CheckpointReader> reader,
                             sharding::CheckpointReader::Open(model.folder));
    model.config = reader->config();
    model.layout = reader->layout();
    return model;
  } else {
    BEARING_ASSIGN_OR_RETURN(model.config, sharding::LoadModelConfig(model.folder));
  }
  model.layout = sharding::ParamLayout::FromConfig(model.config);
  return model;
}

absl::StatusOr<jobs::Workload> CountWork(const PlanOptions& options, const bearing::v1::JobSpec& spec,
                                         const PlannedModel& model) {
  std::unique_ptr<bridge::ChatTokenizer> tokenizer;
  std::error_code error;
  if (fs::exists(fs::path(model.folder) / "tokenizer.json", error)) {
    BEARING_ASSIGN_OR_RETURN(tokenizer, bridge::ChatTokenizer::Load(model.folder, spec.model().chat_template()));
  }
  return jobs::MakeWorkload(spec, model.config, tokenizer.get(), options.workload);
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

absl::StatusOr<jobs::Machine> Calibrate(const PlanOptions& options, const bearing::v1::JobSpec& spec,
                                        const PlannedModel& model, const jobs::Workload& workload) {
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

// Several plans of one job, one after the other.
int Print(const PlanOptions& options, const std::vector<jobs::Plan>& plans, const std::vector<RefusedRanks>& refused,
          const jobs::Workload& workload, const jobs::Machine& machine, OutputFormat format) {
  if (format == OutputFormat::kName) {
    for (const jobs::Plan& plan : plans) std::cout << plan.request.job << '\n';
  } else if (format == OutputFormat::kTable) {
    std::cout << (options.ranks.size() == 1 ? FormatPlan(plans.front(), workload, machine)
                                            : FormatScaling(plans, refused, workload, machine));
  } else {
    nlohmann::json all = nlohmann::json::array();
    for (const jobs::Plan& plan : plans) all.push_back(jobs::PlanJson(plan, workload, machine));
    const nlohmann::json document = options.ranks.size() == 1 ? all.front() : nlohmann::json{{"plans", all}};
    std::cout << (format == OutputFormat::kJson ? document.dump(1) + "\n" : JsonToYaml(document));
  }
  return kExitOk;
}

int MakePlans(PlanOptions options, const Globals& globals) {
  if (!options.model_config.empty()) options.spec.model = fs::absolute(options.model_config).parent_path().string();
  const absl::StatusOr<bearing::v1::JobSpec> spec = LoadSpec(options.spec);
  if (!spec.ok()) return Fail(spec.status(), kExitInvalid);
  if (options.ranks.empty()) options.ranks = {spec->ranks() > 0 ? spec->ranks() : kDefaultRanks};
  const absl::StatusOr<PlannedModel> model = OpenModel(options, *spec);
  if (!model.ok()) return Fail(model.status(), kExitInvalid);
  const absl::StatusOr<jobs::Workload> workload = CountWork(options, *spec, *model);
  if (!workload.ok()) return Fail(workload.status(), kExitInvalid);
  // Before anything is measured: can it be cut at all?
  std::vector<int64_t> possible;
  std::vector<RefusedRanks> refused;
  for (const int64_t ranks : options.ranks) {
    const auto shards = sharding::MakeShardPlan(model->config, model->layout, ranks);
    if (shards.ok()) possible.push_back(ranks);
    if (!shards.ok() && options.ranks.size() == 1) return Fail(shards.status(), kExitInvalid);
    if (!shards.ok()) refused.push_back({ranks, std::string(shards.status().message())});
  }
  if (possible.empty()) return Fail(absl::FailedPreconditionError(refused.front().why), kExitInvalid);
  PlanOptions measured = options;
  measured.ranks = possible;
  const absl::StatusOr<jobs::Machine> machine = FindMachine(measured, *spec, *model, *workload);
  if (!machine.ok()) return Fail(machine.status());
  std::vector<jobs::Plan> plans;
  for (const int64_t ranks : possible) {
    const jobs::PlanRequest request{spec->name(), spec->model().dtype(), ranks, !spec->evaluate().skip(), !spec->edit().skip()};
    absl::StatusOr<jobs::Plan> plan = jobs::MakePlan(model->config, model->layout, *workload, *machine, request);
    if (!plan.ok()) return Fail(plan.status(), kExitInvalid);
    plans.push_back(*std::move(plan));
  }
  return Print(options, plans, refused, *workload, *machine, ParseOutputFormat(globals.output));
}

void AddMachineOptions(CLI::App& command, PlanOptions& options) {
  CLI::Option* machine = command.add_option("--machine", options.machine, "Rates from this file instead of measuring")
                             ->check(CLI::ExistingFile);
  command.add_option("--gpu", options.gpu, "Rates of a GPU's datasheet instead of measuring")
      ->check(CLI::IsMember(jobs::MachineProfileNames()))
      ->excludes(machine);
  command.add_option("--save-machine", options.save_machine, "Write the rates to this file, for --machine");
  command.add_option("--memory,--hbm", options.memory, "Memory of a rank, e.g. 80GiB (default: what is free, or the datasheet's)");
  command.add_option("--ranks-per-node,--gpus-per-node", options.ranks_per_node,
                     "Ranks that share a machine (default: those measured, or 8)")
      ->check(CLI::Range(1, 1024));
  command.add_option("--network", options.network, "Bytes a second of a rank between machines, e.g. 50GB");
  command.add_option("--disk", options.disk, "Bytes a second a rank reads, e.g. 2GB");
  command.add_option("--efficiency", options.efficiency, "With --gpu: share of the peak that products reach (default 0.5)")
      ->check(CLI::Range(0.01, 1.0));
  command.add_option("--threads", options.threads, "Threads a rank while measuring (default: the cores shared out)")
      ->check(CLI::Range(1, 1024));
}

}  // namespace

void AddPlanCommand(CommandLine& line) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* command = line.app.add_subcommand("plan", "What a job takes in memory, messages and time, before it runs");
  command->add_option("JOB", options->spec.file, "Job file (YAML or JSON); - reads standard input")->required();
  command->add_option("--ranks", options->ranks, "Tensor-parallel ranks; several (1,2,4,8) give a line each")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  command->add_option("--set", options->spec.sets, "Set a field of the job, e.g. model.dtype=bfloat16 (repeatable)")
      ->allow_extra_args(false);
  CLI::Option* model =
      command->add_option("--model", options->spec.model, "Model folder, instead of the job file's; config.json is enough");
  command->add_option("--model-config", options->model_config, "A config.json, instead of a model folder")
      ->check(CLI::ExistingFile)
      ->excludes(model);
  AddMachineOptions(*command, *options);
  command->add_option("--induce-share", options->workload.shares.induce, "Share of candidates that pass induce (default 0.15)")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--kl-share", options->workload.shares.kl, "Share of those that pass KL too (default 0.7)")
      ->check(CLI::Range(0.0, 1.0));
  command
      ->add_option("--positions", options->workload.positions,
                   "Template tokens behind the instruction, if there is no tokenizer (default 5)")
      ->check(CLI::Range(1, 64));
  command->footer(
      "Reads the job, its prompts and the model's config, never its weights. Without --machine or --gpu it first measures this\n"
      "machine for some seconds: products, attention, memory, messages and disk at the model's shapes. With --gpu the times\n"
      "are estimates from a datasheet. Memory is exact for weights and counted for the rest; what is assumed is printed.\n"
      "A job that does not fit says by how much, and how many ranks would hold it. Exit code 0 means: planned, not: fits.\n\n"
      "Examples:\n  bearing plan examples/refusal.yaml --ranks 2\n"
      "  bearing plan examples/refusal.yaml --save-machine here.json && bearing plan examples/refusal.yaml --machine here.json\n"
      "  bearing plan examples/refusal.yaml --model-config config.json --set model.dtype=bfloat16 --gpu h100 --hbm 80GiB \\\n"
      "    --ranks 1,2,4,8,16,64 --gpus-per-node 8");
  command->callback([&line, options] { line.action = [&line, options] { return MakePlans(*options, line.globals); }; });
}

}  // namespace bearing::cli
