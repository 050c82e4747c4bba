// `bearing watch`: show a job's progress until it ends.
#include <iostream>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cli/command.h"
#include "cli/completion.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/job_names.h"
#include "cli/jobs_client.h"
#include "cli/signals.h"
#include "cli/summary.h"

namespace bearing::cli {

namespace {

// How to attach again, for a job that goes on without us.
void SayDetached(const std::string& why, const std::string& name) {
  std::cerr << why << "; the job goes on. Look again: bearing watch " << name << ". Stop it: bearing cancel " << name << '\n';
}

}  // namespace

void AddTimeoutOption(CLI::App& command, absl::Duration& timeout) {
  command
      .add_option_function<std::string>(
          "--timeout", [&timeout](const std::string& text) { absl::ParseDuration(text, &timeout); },
          "Detach after so long, e.g. 30s, 10m or 1h30m, with exit code 5 (default: never)")
      ->type_name("DURATION")
      ->check([](const std::string& text) {
        absl::Duration duration;
        const bool fits = absl::ParseDuration(text, &duration) && duration > absl::ZeroDuration();
        return fits ? std::string() : "expected a duration such as 30s, 10m or 1h30m, found " + text;
      });
}

int WatchToEnd(JobsClient& client, const bearing::v1::Job& job, SignalFile& signals, const Globals& globals,
               const WatchOptions& options) {
  ProgressPrinter printer = MakeProgressPrinter(!globals.no_progress && !options.quiet);
  FollowOptions follow;
  follow.deadline = absl::Now() + options.timeout;
  const FollowOutcome outcome = FollowJob(client, job, signals, printer, follow);
  switch (outcome.how) {
    case FollowOutcome::How::kInterrupted:
      SayDetached("detached", job.name());
      return kExitInterrupted;
    case FollowOutcome::How::kTimedOut:
      SayDetached("bearing: not ended after " + absl::FormatDuration(options.timeout), job.name());
      return kExitUnavailable;
    case FollowOutcome::How::kEnded:
      break;
    default:
      return Fail(outcome.status);
  }
  const bearing::v1::Job& ended = outcome.job;
  const bool succeeded = ended.state() == bearing::v1::JOB_STATE_SUCCEEDED;
  if (options.print_result) {
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

int Watch(const std::string& name, const WatchOptions& options, const Globals& globals) {
  absl::StatusOr<SignalFile> signals = SignalFile::Open();
  if (!signals.ok()) return Fail(signals.status());
  JobsClient client(globals.server, globals.security);
  // Asked first, so that a wrong name or server is one plain error.
  const absl::StatusOr<bearing::v1::Job> job = client.Get(name);
  if (!job.ok()) return Fail(job.status());
  return WatchToEnd(client, *job, *signals, globals, options);
}

}  // namespace

void AddWatchCommand(CommandLine& line) {
  auto name = std::make_shared<std::string>();
  auto options = std::make_shared<WatchOptions>();
  CLI::App* command = line.app.add_subcommand("watch", "Show a job's progress until it ends");
  command->add_option("NAME", *name, "Name of the job")->type_name(kJobType)->required();
  AddTimeoutOption(*command, options->timeout);
  command->footer(
      "The exit code is the job's: 0 succeeded, 1 failed, 7 cancelled. Ctrl-C stops watching, not the job.\n\n"
      "Example:\n  bearing watch refusal-3f9a1c\n  bearing watch refusal-3f9a1c --timeout 30m");
  command->callback(
      [&line, name, options] { line.action = [&line, name, options] { return Watch(*name, *options, line.globals); }; });
}

}  // namespace bearing::cli
