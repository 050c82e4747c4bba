// `bearing plan`: what a job will take, before it runs.
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/plan_inputs.h"
#include "cli/plan_text.h"
#include "cli/spec_source.h"
#include "jobs/job_spec.h"
#include "jobs/plan/plan.h"
#include "sharding/shard_plan.h"

namespace bearing::cli {
namespace {

namespace fs = std::filesystem;

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

int64_t TensorParallel(const PlanOptions& options, const bearing::v1::JobSpec& spec, int64_t ranks) {
  return options.tensor_parallel > 0 ? options.tensor_parallel : jobs::TensorParallel(spec, static_cast<int>(ranks));
}

absl::Status CheckLayout(const PlannedModel& model, int64_t ranks, int64_t tensor_parallel) {
  if (ranks % tensor_parallel != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(ranks, " ranks are no multiple of ", tensor_parallel, " that hold a copy of the model (tensor_parallel)"));
  }
  return sharding::MakeShardPlan(model.config, model.layout, tensor_parallel).status();
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
    const absl::Status divides = CheckLayout(*model, ranks, TensorParallel(options, *spec, ranks));
    if (divides.ok()) possible.push_back(ranks);
    if (!divides.ok() && options.ranks.size() == 1) return Fail(divides, kExitInvalid);
    if (!divides.ok()) refused.push_back({ranks, std::string(divides.message())});
  }
  if (possible.empty()) return Fail(absl::FailedPreconditionError(refused.front().why), kExitInvalid);
  PlanOptions measured = options;
  measured.ranks = possible;
  const absl::StatusOr<jobs::Machine> machine = FindMachine(measured, *spec, *model, *workload);
  if (!machine.ok()) return Fail(machine.status());
  std::vector<jobs::Plan> plans;
  for (const int64_t ranks : possible) {
    const jobs::PlanRequest request{
        spec->name(),        spec->model().dtype(), ranks, TensorParallel(options, *spec, ranks), !spec->evaluate().skip(),
        !spec->edit().skip()};
    absl::StatusOr<jobs::Plan> plan = jobs::MakePlan(model->config, model->layout, *workload, *machine, request);
    if (!plan.ok()) return Fail(plan.status(), kExitInvalid);
    plans.push_back(*std::move(plan));
  }
  return Print(options, plans, refused, *workload, *machine, ParseOutputFormat(globals.output));
}

void AddMachineOptions(CLI::App& command, PlanOptions& options) {
  CLI::Option* machine =
      command.add_option("--machine", options.machine, "Rates from this file instead of measuring")->check(CLI::ExistingFile);
  command.add_option("--gpu", options.gpu, "Rates of a GPU's datasheet instead of measuring")
      ->check(CLI::IsMember(jobs::MachineProfileNames()))
      ->excludes(machine);
  command.add_option("--save-machine", options.save_machine, "Write the rates to this file, for --machine");
  command.add_option("--memory,--hbm", options.memory,
                     "Memory of a rank, e.g. 80GiB (default: what is free, or the datasheet's)");
  command
      .add_option("--ranks-per-node,--gpus-per-node", options.ranks_per_node,
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
  command->add_option("JOB", options->spec.file, "Job file (YAML, JSON or .textproto); - reads YAML from standard input")
      ->required();
  command->add_option("--ranks", options->ranks, "Ranks; several (1,2,4,8) give a line each")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--tensor-parallel", options->tensor_parallel,
                   "Of them, those that hold one copy of the model (default: as in the job file, else all)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--set", options->spec.sets, "Set a field of the job, e.g. model.dtype=bfloat16 (repeatable)")
      ->allow_extra_args(false);
  CLI::Option* model =
      command->add_option("--model", options->spec.model, "Model folder, instead of the job file's; config.json is enough");
  command->add_option("--model-config", options->model_config, "A config.json, instead of a model folder")
      ->check(CLI::ExistingFile)
      ->excludes(model);
  command
      ->add_option("--stored-dtype", options->stored_dtype, "Type of weights that are not there, if config.json does not say")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16"}));
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
      "Reads the job, its prompts and the model's config, never its weights. Without --machine or --gpu it first measures "
      "this\n"
      "machine for some seconds: products, attention, memory, messages and disk at the model's shapes. With --gpu the times\n"
      "are estimates from a datasheet. Memory is exact for weights and counted for the rest; what is assumed is printed.\n"
      "A job that does not fit says by how much, and how many ranks would hold it. Exit code 0 means: planned, not: fits.\n\n"
      "Example:\n  bearing plan examples/refusal.yaml --ranks 2\n"
      "  bearing plan examples/refusal.yaml --save-machine here.json && bearing plan examples/refusal.yaml --machine "
      "here.json\n"
      "  bearing plan examples/refusal.yaml --model-config config.json --set model.dtype=bfloat16 --gpu h100 --hbm 80GiB \\\n"
      "    --ranks 1,2,4,8,16,64 --gpus-per-node 8");
  command->callback([&line, options] { line.action = [&line, options] { return MakePlans(*options, line.globals); }; });
}

}  // namespace bearing::cli
