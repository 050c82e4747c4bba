// `bearing watch`: show a job's progress until it ends.
#include <iostream>
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/job_names.h"
#include "cli/jobs_client.h"
#include "cli/signals.h"
#include "cli/summary.h"

namespace bearing::cli {

int WatchToEnd(JobsClient& client, const bearing::v1::Job& job, SignalFile& signals, const Globals& globals,
               bool print_result) {
  ProgressPrinter printer = MakeProgressPrinter(!globals.no_progress);
  const FollowOutcome outcome = FollowJob(client, job, signals, printer, {});
  switch (outcome.how) {
    case FollowOutcome::How::kInterrupted:
      std::cerr << "detached; the job goes on. Look again: bearing watch " << job.name() << ". Stop it: bearing cancel "
                << job.name() << '\n';
      return kExitInterrupted;
    case FollowOutcome::How::kEnded:
      break;
    default:
      return Fail(outcome.status);
  }
  const bearing::v1::Job& ended = outcome.job;
  const bool succeeded = ended.state() == bearing::v1::JOB_STATE_SUCCEEDED;
  if (print_result) {
    const std::string table = succeeded ? ResultTable(ended) : "";
    if (const absl::Status printed = PrintJob(ended, ParseOutputFormat(globals.output), table); !printed.ok())
      return Fail(printed);
  } else if (succeeded) {
    std::cerr << ResultTable(ended);
  }
  if (!succeeded) {
    std::cerr << "bearing: the job " << StateName(ended.state());
    if (ended.has_error()) std::cerr << ": " << ErrorText(ended);
    std::cerr << '\n';
  }
  return ExitCodeOf(ended.state());
}

namespace {

int Watch(const std::string& name, const Globals& globals) {
  absl::StatusOr<SignalFile> signals = SignalFile::Open();
  if (!signals.ok()) return Fail(signals.status());
  JobsClient client(globals.server, globals.security);
  // Asked first, so that a wrong name or server is one plain error.
  const absl::StatusOr<bearing::v1::Job> job = client.Get(name);
  if (!job.ok()) return Fail(job.status());
  return WatchToEnd(client, *job, *signals, globals, /*print_result=*/true);
}

}  // namespace

void AddWatchCommand(CommandLine& line) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = line.app.add_subcommand("watch", "Show a job's progress until it ends");
  command->add_option("NAME", *name, "Name of the job")->required();
  command->footer(
      "The exit code is the job's: 0 succeeded, 1 failed, 7 cancelled. Ctrl-C stops watching, not the job.\n\n"
      "Example:\n  bearing watch refusal-3f9a1c");
  command->callback([&line, name] { line.action = [&line, name] { return Watch(*name, line.globals); }; });
}

}  // namespace bearing::cli
