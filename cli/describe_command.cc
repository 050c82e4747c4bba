// `bearing describe`: all about one job.
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "cli/command.h"
#include "cli/completion.h"
#include "cli/exit_code.h"
#include "cli/jobs_client.h"

namespace bearing::cli {
namespace {

int Describe(const std::string& name, const Globals& globals) {
  JobsClient client(globals.server, globals.security);
  const absl::StatusOr<bearing::v1::Job> job = client.Get(name);
  if (!job.ok()) return Fail(job.status());
  const absl::Status printed = PrintJob(*job, ParseOutputFormat(globals.output), FormatJobDetails(*job, absl::Now()));
  return printed.ok() ? kExitOk : Fail(printed);
}

}  // namespace

void AddDescribeCommand(CommandLine& line) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = line.app.add_subcommand("describe", "Show all about a job");
  command->add_option("NAME", *name, "Name of the job")->type_name(kJobType)->required();
  command->footer("Example:\n  bearing describe refusal-3f9a1c\n  bearing describe refusal-3f9a1c -o json | jq .result");
  command->callback([&line, name] { line.action = [&line, name] { return Describe(*name, line.globals); }; });
}

}  // namespace bearing::cli
