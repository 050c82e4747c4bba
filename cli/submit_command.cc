// `bearing submit`: hand a job to a coordinator.
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/jobs_client.h"
#include "cli/labels.h"
#include "cli/signals.h"
#include "cli/spec_source.h"
#include "cli/summary.h"

namespace bearing::cli {
namespace {

struct SubmitOptions {
  SpecOptions spec;
  bool watch = false;
  bool wait = false;
  absl::Duration timeout = absl::InfiniteDuration();
  bool dry_run = false;
  std::string request_id;
  std::string job_id;
  std::optional<int> priority;
  std::vector<std::string> labels;  // "key=value"
};

// The flags that stand for fields of the job.
absl::Status ApplyFlags(const SubmitOptions& options, bearing::v1::JobSpec& spec) {
  if (options.priority.has_value()) spec.set_priority(*options.priority);
  return AddLabels(options.labels, *spec.mutable_labels());
}

int Submit(const SubmitOptions& options, const Globals& globals) {
  if (options.timeout != absl::InfiniteDuration() && !options.watch && !options.wait) {
    return Fail(absl::InvalidArgumentError("--timeout: needs --watch or --wait"));
  }
  absl::StatusOr<SignalFile> signals = SignalFile::Open();
  if (!signals.ok()) return Fail(signals.status());
  absl::StatusOr<bearing::v1::JobSpec> spec = LoadSpec(options.spec);
  if (!spec.ok()) return Fail(spec.status(), kExitInvalid);
  if (const absl::Status applied = ApplyFlags(options, *spec); !applied.ok()) return Fail(applied, kExitInvalid);
  JobsClient client(globals.server, globals.security);
  bearing::v1::CreateJobRequest request;
  *request.mutable_spec() = *spec;
  request.set_request_id(options.request_id.empty() ? NewRequestId() : options.request_id);
  request.set_validate_only(options.dry_run);
  request.set_job_id(options.job_id);
  const absl::StatusOr<bearing::v1::Job> job = client.Create(request);
  if (!job.ok()) return Fail(job.status(), ExitCodeOfNewJob(job.status()));
  const OutputFormat format = ParseOutputFormat(globals.output);
  if (options.dry_run) {
    std::cerr << "the job is valid; nothing was submitted\n";
    const absl::Status printed = PrintJob(*job, format, "");
    return printed.ok() ? kExitOk : Fail(printed);
  }
  if (const absl::Status printed = PrintJob(*job, format, job->name() + "\n"); !printed.ok()) return Fail(printed);
  if (!options.watch && !options.wait) return kExitOk;
  return WatchToEnd(client, *job, *signals, globals,
                    {.print_result = false, .quiet = !options.watch, .timeout = options.timeout});
}

}  // namespace

void AddSubmitCommand(CommandLine& line) {
  auto options = std::make_shared<SubmitOptions>();
  CLI::App* command = line.app.add_subcommand("submit", "Submit a job to a server and print its name");
  command->add_option("-f,--file", options->spec.file, "Job file (YAML, JSON or .textproto); - reads YAML from standard input")
      ->required();
  command->add_option("--set", options->spec.sets, "Set a field of the job, e.g. select.kl_max=0.2 (repeatable)")
      ->allow_extra_args(false);
  command->add_flag("--watch", options->watch, "Stay until the job ends; the exit code is then the job's");
  command->add_flag("--wait", options->wait, "The same without progress");
  AddTimeoutOption(*command, options->timeout);
  command->add_flag("--dry-run", options->dry_run, "Let the server check the job and submit nothing");
  command->add_option("--request-id", options->request_id, "UUID that makes a repeated submission return the same job");
  command->add_option("--job-id", options->job_id, "Name the job gets (default: the job file's name and six digits)");
  command->add_option("--priority", options->priority, "Place in the queue: higher first (default: the job file's, else 0)")
      ->check(CLI::Range(-100, 100));
  command->add_option("-l,--label", options->labels, "A label, KEY=VALUE (repeatable)")->allow_extra_args(false);
  command->footer(
      "Example:\n  bearing submit -f job.yaml --priority 10 --label team=red\n  name=$(bearing submit -f job.yaml --set "
      "select.kl_max=0.2)\n  bearing watch $name\n  bearing submit -f job.yaml --wait --timeout 2h");
  command->callback([&line, options] { line.action = [&line, options] { return Submit(*options, line.globals); }; });
}

}  // namespace bearing::cli
