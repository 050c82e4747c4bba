// `bearing edit`: a direction written into the weights of a checkpoint. The work is that of bearing-edit, or of the worker
// where the model is to be run; this command checks the flags and becomes that program, so nothing stays in between.
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

struct EditOptions {
  std::string model;
  std::vector<std::string> directions;
  std::string search;
  int point = -1;
  std::string out;
  std::string form;
  std::string quantized;
  std::vector<std::string> strengths;
  std::vector<std::string> layer_strengths;
  std::string layers;
  std::string negative_mean;
  std::string induce;
  int layer = -1;
  int ranks = 1;
  int threads = 0;
  bool preserve_norms = false;
  bool keep_tied = false;
  bool projector = false;
  bool no_verify = false;
  bool overwrite = false;
  bool check_logits = false;
  bool dry_run = false;
};

// A path or an address.
absl::Status CheckFile(const char* flag, const std::string& path) {
  if (storage::HasScheme(path)) return storage::ParseUri(path).status();
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": no such file: ", path));
}

absl::Status CheckEdit(const EditOptions& options) {
  std::error_code error;
  if (storage::HasScheme(options.model)) {
    BEARING_RETURN_IF_ERROR(storage::ParseUri(options.model).status());
  } else if (!std::filesystem::is_directory(options.model, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--model: no such folder: ", options.model));
  }
  for (const std::string& path : options.directions) BEARING_RETURN_IF_ERROR(CheckFile("--direction", path));
  if (options.search.empty() && options.directions.empty()) {
    return absl::InvalidArgumentError("--direction is needed, or --search with --point");
  }
  if (options.search.empty() == (options.point >= 0)) {
    return absl::InvalidArgumentError("--search and --point go together: a point of the search is edited into the weights");
  }
  if (!options.search.empty() && !std::filesystem::is_regular_file(options.search, error)) {
    return absl::InvalidArgumentError(absl::StrCat("--search: no such file: ", options.search));
  }
  if (!options.negative_mean.empty()) BEARING_RETURN_IF_ERROR(CheckFile("--negative-mean", options.negative_mean));
  if (options.overwrite && !options.form.empty() && options.form != "checkpoint") {
    return absl::InvalidArgumentError(absl::StrCat("--overwrite: only a checkpoint is replaced, and --form is ", options.form));
  }
  if (options.out.empty()) {
    return options.dry_run ? absl::OkStatus() : absl::InvalidArgumentError("--out is needed, or --dry-run");
  }
  if (storage::HasScheme(options.out)) {
    BEARING_RETURN_IF_ERROR(storage::ParseUri(options.out).status());
    if (options.form == "control-vector" || options.form == "direction") {
      return absl::InvalidArgumentError(
          "--out: an address needs --form checkpoint or lora; a single file is written to a path");
    }
    return absl::OkStatus();
  }
  const bool may_exist = options.dry_run || options.overwrite || options.form == "direction";
  if (!may_exist && std::filesystem::exists(options.out, error)) {
    return absl::AlreadyExistsError(absl::StrCat("--out is there already: ", options.out));
  }
  return absl::OkStatus();
}

std::vector<std::string> EditArguments(const EditOptions& options, const Globals& globals) {
  std::vector<std::string> all = {"--model", options.model};
  const auto append = [&all](const char* flag, const std::string& value) {
    if (!value.empty()) all.push_back(absl::StrCat(flag, "=", value));
  };
  const auto append_all = [&append](const char* flag, const std::vector<std::string>& values) {
    for (const std::string& value : values) append(flag, value);
  };
  append_all("--direction", options.directions);
  append("--search", options.search);
  if (options.point >= 0) append("--point", absl::StrCat(options.point));
  append("--out", options.out);
  append("--form", options.form);
  append("--quantized", options.quantized);
  append_all("--strength", options.strengths);
  append_all("--layer-strength", options.layer_strengths);
  append("--layers", options.layers);
  append("--negative-mean", options.negative_mean);
  append("--induce", options.induce);
  if (options.layer >= 0) append("--layer", absl::StrCat(options.layer));
  if (options.threads > 0) append("--threads", absl::StrCat(options.threads));
  const auto flag = [&all](bool given, const char* name) {
    if (given) all.emplace_back(name);
  };
  flag(options.preserve_norms, "--preserve-norms");
  flag(options.keep_tied, "--keep-tied");
  flag(options.projector, "--projector");
  flag(options.no_verify, "--no-verify");
  flag(options.check_logits, "--check-logits");
  flag(options.overwrite, "--overwrite");
  flag(options.dry_run, "--dry-run");
  flag(globals.no_progress, "--no-progress");
  flag(globals.output == "json", "--json");
  return all;
}

int Edit(const EditOptions& options, const Globals& globals) {
  if (const absl::Status checked = CheckEdit(options); !checked.ok()) return Fail(checked);
  std::vector<std::string> arguments = EditArguments(options, globals);
  if (!options.check_logits) return Fail(BecomeEditor(std::move(arguments), options.ranks), kExitFailed);
  // Only the worker can run a model.
  arguments.insert(arguments.begin(), "edit");
  const int threads = ThreadsPerRank(options.threads, AvailableCores(), options.ranks);
  return Fail(BecomeWorker(std::move(arguments), options.ranks, threads), kExitFailed);
}

}  // namespace

void AddEditCommand(CommandLine& line) {
  auto options = std::make_shared<EditOptions>();
  CLI::App* command = line.app.add_subcommand("edit", "Write a direction into the weights of a model, with no server set up");
  command->add_option("--model", options->model, "Model folder (Hugging Face layout) or address (s3://...)")->required();
  command
      ->add_option(
          "--direction", options->directions,
          "Direction file: safetensors, or direction.pt of the reference; several are removed as one basis (repeatable)")
      ->allow_extra_args(false);
  command->add_option("--search", options->search, "search.json of `bearing search`: a point of it, instead of a direction");
  command->add_option("--point", options->point, "Number of the point in the search")->check(CLI::Range(0, 100000));
  command->add_option("--out", options->out, "Folder or address to write (a file with --form control-vector and direction)");
  command->add_option("--form", options->form, "What is written (default: checkpoint)")
      ->check(CLI::IsMember({"checkpoint", "lora", "control-vector", "direction"}));
  command
      ->add_option("--quantized", options->quantized,
                   "MXFP4 weights: keep (default; the edited ones are quantized again) or bfloat16 (all are widened)")
      ->check(CLI::IsMember({"keep", "bfloat16"}));
  command
      ->add_option("--ranks", options->ranks,
                   "Groups of threads that share the work, with --check-logits processes (default 1)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--threads", options->threads, "Threads a rank (default: two more than its cores, 3 or 4)")
      ->check(CLI::Range(1, 64));
  command
      ->add_option("--strength", options->strengths,
                   "Share that is removed (default 1): NUMBER, or embedding=, attention=, mlp=, projector=NUMBER (repeatable)")
      ->allow_extra_args(false);
  command->add_option("--layers", options->layers, "Only these layers, FIRST-LAST; the embedding counts with layer 0");
  command->add_option("--layer-strength", options->layer_strengths, "LAYER=NUMBER, a factor of a layer (repeatable)")
      ->allow_extra_args(false);
  command->add_flag("--preserve-norms", options->preserve_norms, "Scale each vector that a weight writes back to its norm");
  command->add_option("--negative-mean", options->negative_mean,
                      "First remove from the direction what it shares with this mean (a job's means.safetensors)");
  command->add_option("--induce", options->induce,
                      "Add the mean difference times this factor at its layer, instead of removing");
  command->add_option("--layer", options->layer, "Layer of the direction, where its file does not say")
      ->check(CLI::Range(0, 100000));
  command->add_flag("--keep-tied", options->keep_tied, "Leave a tied embedding tied");
  command->add_flag("--projector", options->projector, "Edit what writes image features, too");
  command->add_flag("--no-verify", options->no_verify, "Do not read the result back");
  command->add_flag("--check-logits", options->check_logits,
                    "Run the result, and the original under ablation, and record how far their logits are apart");
  command->add_flag("--overwrite", options->overwrite,
                    "Replace a model that is at --out, in one step when the new one is finished");
  command->add_flag("--dry-run", options->dry_run, "List the tensors that would change, and write nothing");
  command->footer(
      "Needs no server and runs no model: works for families that can be edited only, and for models larger than memory.\n"
      "The folder appears whole, or not at all; killed and run again, the command keeps what it had written. docs/edit.md "
      "defines every variant and form.\n\n"
      "Example:\n  bearing edit --model MODEL --direction out/direction.safetensors --out EDITED --ranks 2\n"
      "  bearing edit --model MODEL --direction out/direction.safetensors --dry-run\n"
      "  bearing edit --model MODEL --search out/search/search.json --point 2 --out EDITED\n"
      "  bearing edit --model MODEL --direction direction.pt --out ADAPTER --form lora --layers 10-20 --strength 0.8");
  command->callback([&line, options] { line.action = [&line, options] { return Edit(*options, line.globals); }; });
}

}  // namespace bearing::cli
