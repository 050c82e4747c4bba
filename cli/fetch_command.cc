// `bearing fetch`: copy a finished job's artifacts.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/completion.h"
#include "cli/exit_code.h"
#include "cli/fetch.h"
#include "cli/job_names.h"
#include "cli/jobs_client.h"

namespace bearing::cli {
namespace {

struct FetchOptions {
  std::string name;
  std::string folder;
  std::string include;
};

int Fetch(const FetchOptions& options, const Globals& globals) {
  JobsClient client(globals.server, globals.security);
  const absl::StatusOr<bearing::v1::Job> job = client.Get(options.name);
  if (!job.ok()) return Fail(job.status());
  if (job->state() != bearing::v1::JOB_STATE_SUCCEEDED) {
    return Fail(absl::FailedPreconditionError(
        absl::StrCat("the job has no artifacts to fetch: job=", job->name(), " state=", StateName(job->state()))));
  }
  const absl::StatusOr<std::vector<std::string>> files = FetchArtifacts(job->spec().output(), options.folder, options.include);
  if (!files.ok()) return Fail(files.status());
  switch (ParseOutputFormat(globals.output)) {
    case OutputFormat::kJson:
      std::cout << nlohmann::json({{"files", *files}}).dump(2) << '\n';
      break;
    case OutputFormat::kYaml:
      std::cout << JsonToYaml({{"files", *files}});
      break;
    default:
      for (const std::string& file : *files) std::cout << options.folder << '/' << file << '\n';
  }
  return kExitOk;
}

}  // namespace

void AddFetchCommand(CommandLine& line) {
  auto options = std::make_shared<FetchOptions>();
  CLI::App* command = line.app.add_subcommand("fetch", "Copy a finished job's artifacts and check them");
  command->add_option("NAME", options->name, "Name of the job")->type_name(kJobType)->required();
  command->add_option("FOLDER", options->folder, "Where to; no file in it is overwritten")->required();
  command->add_option("--include", options->include, "Only files that match this pattern, e.g. 'checkpoint/*'");
  command->footer(
      "Every file is checked against the sha256 of the job's manifest. The job's output folder or bucket must be reachable "
      "from here.\n\n"
      "Example:\n  bearing fetch refusal-3f9a1c results\n  bearing fetch refusal-3f9a1c results --include 'direction.*'");
  command->callback([&line, options] { line.action = [&line, options] { return Fetch(*options, line.globals); }; });
}

}  // namespace bearing::cli
