// `bearing cancel`: stop a job.
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/completion.h"
#include "cli/exit_code.h"
#include "cli/job_names.h"
#include "cli/jobs_client.h"

namespace bearing::cli {
namespace {

int Cancel(const std::string& name, const Globals& globals) {
  JobsClient client(globals.server, globals.security);
  const absl::StatusOr<bearing::v1::Job> job = client.Cancel(name);
  if (!job.ok()) return Fail(job.status());
  const absl::Status printed =
      PrintJob(*job, ParseOutputFormat(globals.output), absl::StrCat(job->name(), " ", StateName(job->state()), "\n"));
  return printed.ok() ? kExitOk : Fail(printed);
}

}  // namespace

void AddCancelCommand(CommandLine& line) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = line.app.add_subcommand("cancel", "Cancel a job");
  command->add_option("NAME", *name, "Name of the job")->type_name(kJobType)->required();
  command->footer(
      "A waiting job is cancelled at once, a running one after its current unit of work. A job that has ended is exit code "
      "6.\n\n"
      "Example:\n  bearing cancel refusal-3f9a1c");
  command->callback([&line, name] { line.action = [&line, name] { return Cancel(*name, line.globals); }; });
}

}  // namespace bearing::cli
