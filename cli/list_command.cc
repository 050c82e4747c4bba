// `bearing list`: the jobs of a server.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bearing/v1/jobs_service.pb.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/job_names.h"
#include "cli/jobs_client.h"
#include "cli/labels.h"

namespace bearing::cli {
namespace {

struct ListOptions {
  std::string state;
  std::vector<std::string> labels;  // "key=value"
};

int List(const ListOptions& options, const Globals& globals) {
  bearing::v1::ListJobsRequest request;
  request.set_state(ParseState(options.state));
  if (const absl::Status added = AddLabels(options.labels, *request.mutable_labels()); !added.ok()) return Fail(added);
  JobsClient client(globals.server, globals.security);
  const absl::StatusOr<std::vector<bearing::v1::Job>> jobs = client.List(request);
  if (!jobs.ok()) return Fail(jobs.status());
  const OutputFormat format = ParseOutputFormat(globals.output);
  if (format == OutputFormat::kTable) {
    if (jobs->empty()) {
      std::cerr << "no jobs\n";
    } else {
      std::cout << FormatJobTable(*jobs, absl::Now());
    }
  } else if (format == OutputFormat::kName) {
    for (const bearing::v1::Job& job : *jobs) std::cout << job.name() << '\n';
  } else {
    bearing::v1::ListJobsResponse all;
    for (const bearing::v1::Job& job : *jobs) *all.add_jobs() = job;
    const absl::StatusOr<std::string> text = Encode(all, format);
    if (!text.ok()) return Fail(text.status());
    std::cout << *text;
  }
  return kExitOk;
}

}  // namespace

void AddListCommand(CommandLine& line) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* command = line.app.add_subcommand("list", "List jobs, newest first");
  command->add_option("--state", options->state, "Only jobs in this state")
      ->check(CLI::IsMember({"queued", "running", "cancelling", "succeeded", "failed", "cancelled"}));
  command->add_option("-l,--label", options->labels, "Only jobs with this label, KEY=VALUE (repeatable)")
      ->allow_extra_args(false);
  command->footer(
      "Example:\n  bearing list --state running\n  bearing list --label team=red\n  bearing list -o json | jq -r "
      "'.jobs[].name'");
  command->callback([&line, options] { line.action = [&line, options] { return List(*options, line.globals); }; });
}

}  // namespace bearing::cli
