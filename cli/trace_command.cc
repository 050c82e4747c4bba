// `bearing trace`: run prompts through a model and write what happened inside. The work is the worker's; this command checks
// the flags and becomes the worker (or mpirun with the worker), so nothing stays in between.
#include <filesystem>
#include <memory>
#include <string>
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

struct TraceOptions {
  std::string model;
  std::string prompts;
  std::string token_ids;
  std::string out;
  std::string dtype;
  std::string ablate;
  std::vector<std::string> strengths;
  std::vector<std::string> layer_strengths;
  std::string layers;
  std::string add;
  std::string device;
  int layer = -1;
  int ranks = 1;
  int threads = 0;
};

absl::Status CheckIsFile(const char* flag, const std::string& path) {
  std::error_code error;
  if (path.empty() || std::filesystem::is_regular_file(path, error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": no such file: ", path));
}

absl::Status Check(const TraceOptions& options) {
  std::error_code error;
  if (!storage::HasScheme(options.model) && !std::filesystem::is_directory(options.model, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--model: no such folder: ", options.model));
  }
  if (options.prompts.empty() == options.token_ids.empty()) {
    return absl::InvalidArgumentError("exactly one of --prompts and --token-ids is needed");
  }
  BEARING_RETURN_IF_ERROR(CheckIsFile("--prompts", options.prompts));
  BEARING_RETURN_IF_ERROR(CheckIsFile("--token-ids", options.token_ids));
  BEARING_RETURN_IF_ERROR(CheckIsFile("--ablate", options.ablate));
  BEARING_RETURN_IF_ERROR(CheckIsFile("--add", options.add));
  if (options.add.empty() != (options.layer < 0)) {
    return absl::InvalidArgumentError("--add and --layer go together: the direction is added at that layer");
  }
  const std::filesystem::path folder = std::filesystem::absolute(options.out).parent_path();
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--out: no such folder: ", folder.string()));
  }
  return absl::OkStatus();
}

std::vector<std::string> WorkerArguments(const TraceOptions& options) {
  std::vector<std::string> all = {"trace", "--model", options.model, "--out", options.out};
  const auto append = [&all](const char* flag, const std::string& value) {
    if (!value.empty()) all.insert(all.end(), {flag, value});
  };
  append("--prompts", options.prompts);
  append("--token-ids", options.token_ids);
  append("--dtype", options.dtype);
  append("--ablate", options.ablate);
  for (const std::string& value : options.strengths) all.push_back(absl::StrCat("--strength=", value));
  for (const std::string& value : options.layer_strengths) all.push_back(absl::StrCat("--layer-strength=", value));
  append("--layers", options.layers);
  append("--add", options.add);
  append("--device", options.device);
  if (options.layer >= 0) append("--layer", absl::StrCat(options.layer));
  return all;
}

int Trace(const TraceOptions& options) {
  if (const absl::Status checked = Check(options); !checked.ok()) return Fail(checked, kExitInvalid);
  const int threads = ThreadsPerRank(options.threads, AvailableCores(), options.ranks);
  return Fail(BecomeWorker(WorkerArguments(options), options.ranks, threads), kExitFailed);
}

}  // namespace

void AddTraceCommand(CommandLine& line) {
  auto options = std::make_shared<TraceOptions>();
  CLI::App* command = line.app.add_subcommand("trace", "Write residuals and logits of prompts, for other tools to check");
  command->add_option("--model", options->model, "Model folder (Hugging Face layout)")->required();
  command->add_option("--prompts", options->prompts, "Prompt file; each prompt goes through the chat template");
  command->add_option("--token-ids", options->token_ids, "JSON file with a list of lists of token ids (no tokenizer is used)");
  command->add_option("--out", options->out, "File to write (safetensors: token ids, residual [n, L+1, d], logits [n, V])")
      ->required();
  command->add_option("--ranks", options->ranks, "Tensor-parallel ranks (default 1)")->check(CLI::Range(1, 1024));
  command->add_option("--dtype", options->dtype, "What the forward pass computes in")
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  command->add_option("--ablate", options->ablate, "Direction file to remove at every layer");
  for (CLI::Option* strength :
       {command->add_option("--strength", options->strengths,
                            "Share of it that is removed, as `bearing edit` takes it (repeatable)"),
        command->add_option("--layer-strength", options->layer_strengths, "LAYER=NUMBER, a factor of a layer (repeatable)"),
        command->add_option("--layers", options->layers, "Remove it in these layers only, FIRST-LAST")}) {
    strength->needs("--ablate")->allow_extra_args(false);
  }
  command->add_option("--add", options->add, "Direction file to add, at --layer");
  command->add_option("--device", options->device, "Where to compute (default auto: a GPU a rank where there are enough)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  command->add_option("--layer", options->layer, "Layer of --add")->check(CLI::Range(0, 100000));
  command->add_option("--threads", options->threads, "Threads a rank (default: the cores shared out)")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Needs no server.\n\n"
      "Example:\n  bearing trace --model MODEL --prompts prompts.json --out trace.safetensors --ranks 2\n"
      "  bearing trace --model MODEL --token-ids ids.json --out ablated.safetensors --ablate out/direction.safetensors");
  command->callback([&line, options] { line.action = [options] { return Trace(*options); }; });
}

}  // namespace bearing::cli
