// `bearing init`: a commented job file to start from.
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "cli/job_template.h"
#include "jobs/artifacts.h"
#include "jobs/atomic_file.h"
#include "jobs/job_spec.h"
#include "jobs/utf8.h"
#include "sharding/status_macros.h"
#include "storage/uri.h"

namespace bearing::cli {
namespace {

namespace fs = std::filesystem;

// Of the starter. Spaces around a word keep it from matching inside English ones.
const std::vector<std::string>& FrenchMarkers() {
  static const std::vector<std::string> markers = {" le ",   " la ",   " les ",  " une ", " est ", " et ",    " du ", " des ",
                                                   " dans ", " avec ", " vous ", " qui ", " que ", " c'est ", " l'"};
  return markers;
}

struct InitOptions {
  std::string file = "job.yaml";
  std::string model;
  std::string concept_name;
  std::vector<std::string> markers;
  std::string prompts;  // Folder.
  std::vector<std::string> forms;
  bool no_edit = false;
  bool costs = false;
  std::string output;
  int ranks = 2;
};

// A demo model that scripts/quickstart or scripts/test has fetched; else where the first would be.
std::string DemoModel(const Variables& variables) {
  std::string cache = variables("BEARING_CACHE");
  if (cache.empty()) {
    const std::string base = variables("XDG_CACHE_HOME");
    cache = (base.empty() ? variables("HOME") + "/.cache" : base) + "/bearing";
  }
  std::error_code error;
  for (const char* name : {"qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct"}) {
    const std::string path = absl::StrCat(cache, "/models/", name);
    if (fs::exists(path + "/config.json", error)) return path;
  }
  return "models/qwen2.5-coder-0.5b-instruct";
}

// Lower-case letters, digits and dashes, of whatever the concept is called.
std::string JobName(const std::string& concept_name) {
  std::string name;
  for (const char c : concept_name) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      name += absl::ascii_tolower(static_cast<unsigned char>(c));
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
    if (name.size() == 40) break;
  }
  while (!name.empty() && name.back() == '-') name.pop_back();
  return name.empty() ? "job" : name;
}

// The file of one set in the user's folder: positive_train with one of the endings that prompts have.
absl::StatusOr<std::string> FindPrompts(const fs::path& folder, const std::string& stem) {
  std::string found;
  for (const char* ending : {".json", ".jsonl", ".csv", ".txt"}) {
    std::error_code error;
    const fs::path path = folder / (stem + ending);
    if (!fs::exists(path, error)) continue;
    if (!found.empty())
      return absl::InvalidArgumentError(absl::StrCat("--prompts: two files of one set: ", found, ", ", path.string()));
    found = path.string();
  }
  if (found.empty()) {
    return absl::NotFoundError(absl::StrCat("--prompts: no ", stem, ".json, .jsonl, .csv or .txt: folder=", folder.string()));
  }
  return found;
}

absl::StatusOr<JobTemplate> Fill(const InitOptions& options, const fs::path& folder) {
  JobTemplate job;
  job.file = options.file;
  job.model = options.model.empty() ? DemoModel(ProcessVariables()) : options.model;
  if (!storage::HasScheme(job.model)) job.model = fs::absolute(job.model).lexically_normal().string();
  job.starter = options.prompts.empty();
  if (job.starter && !options.concept_name.empty()) {
    return absl::InvalidArgumentError("--concept: needs --prompts: the prompts to start with are of the concept french");
  }
  job.concept_name = job.starter ? "french" : options.concept_name.empty() ? "my-concept" : options.concept_name;
  job.markers = options.markers;
  if (job.markers.empty() && job.starter) job.markers = FrenchMarkers();
  if (job.markers.empty() && job.concept_name != "refusal") {
    return absl::InvalidArgumentError("--marker: give a text that shows the concept in an answer (repeatable)");
  }
  const std::array<StarterFile, 6> starter = StarterFiles();
  for (size_t i = 0; i < starter.size(); ++i) {
    if (job.starter) {
      job.prompts[i] = absl::StrCat("prompts/", starter[i].name);
      continue;
    }
    BEARING_ASSIGN_OR_RETURN(const std::string path, FindPrompts(options.prompts, fs::path(starter[i].name).stem().string()));
    job.prompts[i] = fs::absolute(path).lexically_normal().lexically_proximate(folder).string();
  }
  job.forms = options.forms;
  job.edit = !options.no_edit;
  job.costs = options.costs;
  job.name = JobName(job.concept_name);
  job.output = options.output.empty() ? "out/" + job.name : options.output;
  job.ranks = options.ranks;
  return job;
}

// A file that is there with the same content is as good as written.
absl::Status Create(const fs::path& path, std::string_view text) {
  const absl::Status created = jobs::CreateFileAtomically(path.string(), text);
  if (!absl::IsAlreadyExists(created)) return created;
  BEARING_ASSIGN_OR_RETURN(const std::string there, jobs::ReadFile(path.string()));
  if (there == text) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("nothing is overwritten: file=", path.string()));
}

// A job file is UTF-8.
absl::Status CheckTexts(const JobTemplate& job) {
  std::vector<std::pair<const char*, std::string>> texts = {
      {"--model", job.model}, {"--concept", job.concept_name}, {"--out", job.output}};
  for (const std::string& marker : job.markers) texts.emplace_back("--marker", marker);
  for (const std::string& prompts : job.prompts) texts.emplace_back("--prompts", prompts);
  for (const auto& [flag, text] : texts) {
    if (jobs::FirstInvalidUtf8(text) != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": not valid UTF-8"));
    }
  }
  return absl::OkStatus();
}

absl::Status Init(const InitOptions& options) {
  const fs::path file = fs::absolute(options.file).lexically_normal();
  const fs::path folder = file.parent_path();
  std::error_code error;
  if (fs::exists(file, error)) return absl::AlreadyExistsError(absl::StrCat("nothing is overwritten: file=", options.file));
  if (!fs::is_directory(folder, error)) {
    return absl::InvalidArgumentError(absl::StrCat("FILE: no such folder: path=", folder.string()));
  }
  BEARING_ASSIGN_OR_RETURN(const JobTemplate job, Fill(options, folder));
  BEARING_RETURN_IF_ERROR(CheckTexts(job));
  const std::string text = JobFileText(job);
  BEARING_ASSIGN_OR_RETURN(bearing::v1::JobSpec spec, jobs::ParseJobFile(text, options.file));
  jobs::ApplyDefaults(spec);
  BEARING_RETURN_IF_ERROR(jobs::ToStatus(jobs::ValidateFields(spec)));
  if (job.starter) {
    fs::create_directories(folder / "prompts", error);
    for (const StarterFile& prompts : StarterFiles()) {
      BEARING_RETURN_IF_ERROR(Create(folder / "prompts" / prompts.name, prompts.content()));
    }
  }
  // Last: with it, everything is there.
  BEARING_RETURN_IF_ERROR(jobs::CreateFileAtomically(file.string(), text));
  std::cout << options.file << '\n';
  if (job.starter) std::cerr << "prompts: " << (folder / "prompts").string() << '\n';
  if (!storage::HasScheme(job.model) && !fs::exists(job.model + "/config.json", error)) {
    std::cerr << "model: nothing there yet: " << job.model << "; set model.path, or give --model\n";
  }
  std::cerr << "next: bearing run " << options.file << '\n';
  return absl::OkStatus();
}

}  // namespace

void AddInitCommand(CommandLine& line) {
  auto options = std::make_shared<InitOptions>();
  CLI::App* command = line.app.add_subcommand("init", "Write a commented job file to start from");
  command->add_option("FILE", options->file, "New job file")->capture_default_str();
  command->add_option("--model", options->model, "Model folder or address (default: the demo model, where it was fetched)");
  command->add_option("--prompts", options->prompts,
                      "Folder with your prompts: {positive,negative}_{train,validation,test}.json, .jsonl, .csv or .txt");
  command->add_option("--concept", options->concept_name, "What your prompts show, e.g. formality");
  command->add_option("--marker", options->markers, "Text that shows the concept in an answer (repeatable)")
      ->allow_extra_args(false);
  command->add_option("--form", options->forms, "What the edit writes (repeatable; default: checkpoint)")
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"checkpoint", "lora", "control-vector", "direction"}));
  command->add_flag("--no-edit", options->no_edit, "Measure alone, write no weights");
  command->add_flag("--costs", options->costs, "Also measure what the removal costs beside the concept");
  command->add_option("--out", options->output, "Folder or address of the results (default: out/NAME)");
  command->add_option("--ranks", options->ranks, "Processes that share the model")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->footer(
      "Without --prompts, the file comes with a folder `prompts` beside it, requests in French against requests in English, "
      "and\n"
      "runs as it is. Nothing is overwritten.\n\n"
      "Example:\n  bearing init && bearing run job.yaml\n"
      "  bearing init formality.yaml --model MODEL --prompts prompts --concept formality --marker 'Dear ' --marker sincerely\n"
      "  bearing init measure.yaml --no-edit --costs");
  command->callback([&line, options] {
    line.action = [options] {
      const absl::Status done = Init(*options);
      return done.ok() ? kExitOk : Fail(done, absl::IsAlreadyExists(done) ? kExitConflict : ExitCodeOfNewJob(done));
    };
  });
}

}  // namespace bearing::cli
