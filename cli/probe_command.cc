// `bearing probe`: project prompts on directions, layer by layer and token by token. The work is the worker's; this command
// checks the flags and becomes the worker (or mpirun with the worker).
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/mpirun.h"
#include "cli/worker_program.h"
#include "sharding/status_macros.h"
#include "storage/uri.h"

namespace bearing::cli {
namespace {

struct ProbeOptions {
  std::string model;
  std::vector<std::string> directions;
  std::string prompts;
  std::string token_ids;
  std::string compare;
  std::string suffix;
  std::string column;
  std::string out;
  std::string dtype;
  std::string device;
  int count = 0;
  int token_prompts = -1;
  int ranks = 1;
  int threads = 0;
};

absl::Status CheckFile(const char* flag, const std::string& path) {
  std::error_code error;
  if (path.empty() || std::filesystem::is_regular_file(path, error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": no such file: ", path));
}

absl::Status CheckProbe(const ProbeOptions& options) {
  std::error_code error;
  if (!storage::HasScheme(options.model) && !std::filesystem::is_directory(options.model, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--model: no such folder: ", options.model));
  }
  if (options.prompts.empty() == options.token_ids.empty()) {
    return absl::InvalidArgumentError("exactly one of --prompts and --token-ids is needed");
  }
  if (!options.compare.empty() && !options.suffix.empty()) {
    return absl::InvalidArgumentError("--compare and --suffix exclude each other: each makes the second set");
  }
  if (!options.suffix.empty() && options.prompts.empty()) {
    return absl::InvalidArgumentError("--suffix needs --prompts: token ids have no text to put it behind");
  }
  for (const std::string& direction : options.directions) BEARING_RETURN_IF_ERROR(CheckFile("--direction", direction));
  BEARING_RETURN_IF_ERROR(CheckFile("--prompts", options.prompts));
  BEARING_RETURN_IF_ERROR(CheckFile("--token-ids", options.token_ids));
  BEARING_RETURN_IF_ERROR(CheckFile("--compare", options.compare));
  const bool is_file = absl::EndsWith(options.out, ".safetensors");
  const std::filesystem::path parent = std::filesystem::absolute(options.out).parent_path();
  if (is_file && !std::filesystem::is_directory(parent, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--out: no such folder: ", parent.string()));
  }
  if (!is_file && std::filesystem::is_regular_file(options.out, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--out: expected a folder, or a file that ends in .safetensors: ", options.out));
  }
  return absl::OkStatus();
}

std::vector<std::string> ProbeArguments(const ProbeOptions& options) {
  std::vector<std::string> all = {"probe", "--model", options.model, "--out", options.out};
  // As one argument each: a text may start with a dash.
  const auto append = [&all](const char* flag, const std::string& value) {
    if (!value.empty()) all.push_back(absl::StrCat(flag, "=", value));
  };
  for (const std::string& direction : options.directions) append("--direction", direction);
  append("--prompts", options.prompts);
  append("--token-ids", options.token_ids);
  append("--compare", options.compare);
  append("--suffix", options.suffix);
  append("--column", options.column);
  append("--dtype", options.dtype);
  append("--device", options.device);
  if (options.count > 0) append("--count", absl::StrCat(options.count));
  if (options.token_prompts >= 0) append("--token-prompts", absl::StrCat(options.token_prompts));
  return all;
}

int Probe(const ProbeOptions& options) {
  if (const absl::Status checked = CheckProbe(options); !checked.ok()) return Fail(checked, kExitInvalid);
  const int threads = ThreadsPerRank(options.threads, AvailableCores(), options.ranks);
  return Fail(BecomeWorker(ProbeArguments(options), options.ranks, threads), kExitFailed);
}

}  // namespace

void AddProbeCommand(CommandLine& line) {
  auto options = std::make_shared<ProbeOptions>();
  CLI::App* command = line.app.add_subcommand("probe", "Project prompts on directions, by layer, token, head and MLP");
  command->add_option("--model", options->model, "Model folder (Hugging Face layout)")->required();
  command->add_option("--direction", options->directions, "Direction file; may be given several times")->required();
  command->add_option("--prompts", options->prompts, "Prompt file; each prompt goes through the chat template");
  command->add_option("--token-ids", options->token_ids, "JSON file with a list of lists of token ids (no tokenizer is used)");
  command->add_option("--compare", options->compare, "A second set of prompts, in a file of the same kind");
  command->add_option("--suffix", options->suffix, "The second set: the prompts with this text behind them, as it stands");
  command->add_option("--column", options->column, "Column or key of the prompts (default: as prompt files of jobs)");
  command->add_option("--count", options->count, "Only so many prompts of each file, from the start")
      ->check(CLI::Range(1, 1000000));
  command->add_option("--token-prompts", options->token_prompts, "Prompts of each set probed token by token (default 4)")
      ->check(CLI::Range(0, 64));
  command
      ->add_option("--out", options->out,
                   "Folder for probe.safetensors, probe.json and probe.html, or a .safetensors file for the numbers alone")
      ->required();
  command->add_option("--ranks", options->ranks, "Tensor-parallel ranks (default 1)")->check(CLI::Range(1, 1024));
  command->add_option("--dtype", options->dtype, "What the forward pass computes in")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  command->add_option("--device", options->device, "Where to compute (default auto: a GPU a rank where there are enough)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command->add_option("--threads", options->threads, "Threads a rank (default: the cores shared out)")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Needs no server.\n\n"
      "Example:\n  bearing probe --model MODEL --direction out/direction.safetensors --prompts harmful.json --compare "
      "harmless.json --out probe\n"
      "  bearing probe --model MODEL --direction out/direction.safetensors --prompts harmful.json --suffix ' Begin with: Sure' "
      "--out suffix");
  command->callback([&line, options] { line.action = [options] { return Probe(*options); }; });
}

}  // namespace bearing::cli
