// `bearing search`: strengths, components and layer of what is removed, tuned over interventions. The work is the worker's;
// this command checks the flags and becomes the worker (or mpirun with the worker), so nothing stays in between.
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/mpirun.h"
#include "cli/worker_program.h"
#include "sharding/status_macros.h"
#include "storage/uri.h"

namespace bearing::cli {
namespace {

struct SearchOptions {
  std::string run;
  std::string out;
  // Flags with a value that go to the worker as they are.
  std::string model, dtype, positive, negative, device;
  std::string trials, seed, population, screen, points, max_new_tokens, kl_cap, position, first_layer, last_layer;
  std::string tensor_parallel;
  int ranks = 1;
  int threads = 0;

  std::vector<std::pair<const char*, const std::string*>> Passed() const {
    return {{"--model", &model},
            {"--dtype", &dtype},
            {"--positive", &positive},
            {"--negative", &negative},
            {"--device", &device},
            {"--trials", &trials},
            {"--seed", &seed},
            {"--population", &population},
            {"--screen", &screen},
            {"--points", &points},
            {"--max-new-tokens", &max_new_tokens},
            {"--kl-cap", &kl_cap},
            {"--position", &position},
            {"--first-layer", &first_layer},
            {"--last-layer", &last_layer},
            {"--tensor-parallel", &tensor_parallel}};
  }
};

absl::Status Check(const SearchOptions& options) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(std::filesystem::path(options.run) / "manifest.json", error)) {
    return absl::InvalidArgumentError(absl::StrCat("RUN: no finished run there (no manifest.json): ", options.run));
  }
  if (!options.model.empty() && !storage::HasScheme(options.model) && !std::filesystem::is_directory(options.model, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--model: no such folder: ", options.model));
  }
  if (options.positive.empty() != options.negative.empty()) {
    return absl::InvalidArgumentError("--positive and --negative go together: both sides' prompts are of one search");
  }
  const std::pair<const char*, const std::string*> files[] = {{"--positive", &options.positive},
                                                              {"--negative", &options.negative}};
  for (const auto& [flag, path] : files) {
    if (!path->empty() && !storage::HasScheme(*path) && !std::filesystem::is_regular_file(*path, error)) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": no such file: ", *path));
    }
  }
  if (std::filesystem::exists(options.out, error) && !std::filesystem::is_directory(options.out, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--out: not a folder: ", options.out));
  }
  if (std::filesystem::exists(std::filesystem::path(options.out) / "manifest.json", error)) {
    return absl::InvalidArgumentError(absl::StrCat("--out: the folder holds a finished run; choose another: ", options.out));
  }
  return absl::OkStatus();
}

int Search(const SearchOptions& options, const Globals& globals) {
  if (const absl::Status checked = Check(options); !checked.ok()) return Fail(checked, kExitInvalid);
  std::vector<std::string> arguments = {"search", "--run", options.run, "--out", options.out};
  for (const auto& [flag, value] : options.Passed()) {
    if (!value->empty()) arguments.push_back(absl::StrCat(flag, "=", *value));
  }
  if (globals.no_progress) arguments.emplace_back("--no-progress");
  const int threads = ThreadsPerRank(options.threads, AvailableCores(), options.ranks);
  return Fail(BecomeWorker(arguments, options.ranks, threads), kExitFailed);
}

void AddOptimizerOptions(CLI::App& command, SearchOptions& options) {
  command.add_option("--trials", options.trials, "Trials in all (default 200); more continue a search that is there")
      ->check(CLI::Range(1, 1000000));
  command.add_option("--seed", options.seed, "Seed of the optimizer (default 1): the same seed makes the same trials")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--population", options.population, "Trials that are scored together (default 16)")
      ->check(CLI::Range(2, 1000));
  command.add_option("--screen", options.screen, "Prompts a side in the screen of a trial (default 8)")
      ->check(CLI::Range(1, 100000));
  command.add_option("--points", options.points, "Points of the front whose answers are generated (default 8)")
      ->check(CLI::Range(1, 1000));
  command.add_option("--max-new-tokens", options.max_new_tokens, "Tokens of an answer (default: as the run)")
      ->check(CLI::Range(1, 8192));
  command.add_option("--kl-cap", options.kl_cap, "KL above which a trial is of no interest (default 1)")
      ->check(CLI::PositiveNumber);
  command.add_option("--position", options.position, "Position of the directions (default: that of the run's direction)")
      ->check(CLI::Range(-1000, -1));
  command.add_option("--first-layer", options.first_layer, "Take directions from this layer on")->check(CLI::Range(0, 100000));
  command.add_option("--last-layer", options.last_layer, "Take directions up to this layer")->check(CLI::Range(0, 100000));
}

}  // namespace

void AddSearchCommand(CommandLine& line) {
  auto options = std::make_shared<SearchOptions>();
  CLI::App* command = line.app.add_subcommand(
      "search", "Tune what is removed of a finished run's direction: least of the concept at the least side effect");
  command->add_option("RUN", options->run, "Output folder of a finished run")->required();
  command->add_option("--out", options->out, "Folder to write; a search that is there goes on")->required();
  AddOptimizerOptions(*command, *options);
  command->add_option("--model", options->model, "Model folder, where it is no longer that of the run's job file");
  command->add_option("--dtype", options->dtype, "What the forward pass computes in (default: as the run)")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  command->add_option("--positive", options->positive, "Prompt file instead of the run's validation prompts (with --negative)");
  command->add_option("--negative", options->negative, "The same of the other side");
  command->add_option("--ranks", options->ranks, "Processes (default 1)")->check(CLI::Range(1, 1024));
  command->add_option("--tensor-parallel", options->tensor_parallel, "Of them, those that hold one copy (default: all)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--threads", options->threads, "Threads a rank (default: the cores shared out)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--device", options->device, "Where to compute (default auto: a GPU a rank where there are enough)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command->footer(
      "Needs no server, and changes no weight: a trial is an intervention, and many share a forward pass. Interrupted and run\n"
      "again, it goes on. docs/search.md says what is searched, and how.\n\n"
      "Example:\n  bearing search out/refusal --out out/refusal-search --trials 200 --ranks 2\n"
      "  bearing edit --model MODEL --search out/refusal-search/search.json --point 2 --out EDITED");
  command->callback([&line, options] { line.action = [&line, options] { return Search(*options, line.globals); }; });
}

}  // namespace bearing::cli
