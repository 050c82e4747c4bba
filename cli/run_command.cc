// `bearing run`: a whole job on this machine, with nothing set up beforehand.
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/job_names.h"
#include "cli/jobs_client.h"
#include "cli/local_service.h"
#include "cli/mpirun.h"
#include "cli/process.h"
#include "cli/signals.h"
#include "cli/spec_source.h"
#include "cli/summary.h"
#include "jobs/job_spec.h"
#include "jobs/work_folder.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

constexpr int kLogLines = 20;

struct RunOptions {
  SpecOptions spec;
  int threads = 0;
  std::string device = "auto";
  bool dry_run = false;
};

constexpr char kResumeHint[] = "Running the same command again resumes from the last finished stage.";

absl::StatusOr<std::string> WorkFolderOf(const bearing::v1::JobSpec& spec) {
  BEARING_ASSIGN_OR_RETURN(const std::string digest, jobs::SpecDigest(spec));
  return jobs::WorkFolder(spec, digest);
}

void PrintLogEnd(const std::string& path) {
  std::cerr << "last lines of " << path << ":\n";
  for (const std::string& line : LastLines(path, kLogLines)) std::cerr << "  " << line << '\n';
}

// Says what came of it and gives the exit code. `service` is nullptr when the job ran on somebody else's server.
int Conclude(const FollowOutcome& outcome, LocalService* service, OutputFormat format) {
  const bearing::v1::Job& job = outcome.job;
  switch (outcome.how) {
    case FollowOutcome::How::kInterrupted:
      std::cerr << "interrupted. " << kResumeHint << '\n';
      return kExitInterrupted;
    case FollowOutcome::How::kBroken: {
      const std::optional<LocalService::EarlyEnd> end = service->FindEarlyEnd();
      std::cerr << "bearing: " << (end.has_value() ? end->what : "a process ended before the job did") << '\n';
      if (end.has_value()) PrintLogEnd(end->log);
      std::cerr << kResumeHint << '\n';
      return kExitFailed;
    }
    case FollowOutcome::How::kLost:
    case FollowOutcome::How::kTimedOut:  // There is none here.
      return Fail(outcome.status);
    case FollowOutcome::How::kEnded:
      break;
  }
  if (job.state() == bearing::v1::JOB_STATE_SUCCEEDED) {
    if (const absl::Status printed = PrintJob(job, format, ResultTable(job)); !printed.ok()) return Fail(printed);
    return kExitOk;
  }
  if (format == OutputFormat::kJson || format == OutputFormat::kYaml) PrintJob(job, format, "").IgnoreError();
  std::cerr << "bearing: the job " << StateName(job.state());
  if (job.has_error()) std::cerr << ": " << ErrorText(job);
  std::cerr << '\n';
  if (service != nullptr && job.state() == bearing::v1::JOB_STATE_FAILED) std::cerr << "log: " << service->worker_log() << '\n';
  return ExitCodeOf(job.state());
}

// Submits the job to `client` and follows it. `service` may be nullptr.
int SubmitAndFollow(JobsClient& client, const bearing::v1::JobSpec& spec, LocalService* service, SignalFile& signals,
                    const Globals& globals) {
  bearing::v1::CreateJobRequest request;
  *request.mutable_spec() = spec;
  request.set_request_id(NewRequestId());
  const absl::StatusOr<bearing::v1::Job> job = client.Create(request);
  if (!job.ok()) {
    if (service != nullptr) service->StopAndRemove();
    return Fail(job.status(), ExitCodeOfNewJob(job.status()));
  }
  if (service != nullptr) {
    if (const absl::Status started = service->StartWorkers(); !started.ok()) return Fail(started, kExitFailed);
  }
  ProgressPrinter printer = MakeProgressPrinter(!globals.no_progress);
  FollowOptions options{.cancel_on_signal = true, .is_broken = nullptr};
  if (service != nullptr) options.is_broken = [service] { return service->FindEarlyEnd().has_value(); };
  const FollowOutcome outcome = FollowJob(client, *job, signals, printer, options);
  const int code = Conclude(outcome, service, ParseOutputFormat(globals.output));
  if (service != nullptr) service->Stop();
  return code;
}

// Prints the job as it would run.
int SayValid(const bearing::v1::JobSpec& spec, const Globals& globals) {
  std::cerr << "the job is valid; nothing was run\n";
  const OutputFormat format = ParseOutputFormat(globals.output);
  if (format == OutputFormat::kName) std::cout << spec.name() << '\n';
  if (format != OutputFormat::kJson && format != OutputFormat::kYaml) return kExitOk;
  const absl::StatusOr<std::string> text = Encode(spec, format);
  if (!text.ok()) return Fail(text.status());
  std::cout << *text;
  return kExitOk;
}

int CheckOnServer(JobsClient& client, const bearing::v1::JobSpec& spec, const Globals& globals) {
  bearing::v1::CreateJobRequest request;
  *request.mutable_spec() = spec;
  request.set_validate_only(true);
  const absl::StatusOr<bearing::v1::Job> job = client.Create(request);
  return job.ok() ? SayValid(job->spec(), globals) : Fail(job.status(), ExitCodeOfNewJob(job.status()));
}

int RunLocally(const RunOptions& options, bearing::v1::JobSpec spec, SignalFile& signals, const Globals& globals) {
  if (spec.ranks() == 0) spec.set_ranks(kDefaultRanks);
  if (const absl::Status checked = CheckFiles(spec, spec.ranks()); !checked.ok()) {
    return Fail(checked, ExitCodeOfNewJob(checked));
  }
  if (options.dry_run) return SayValid(spec, globals);
  absl::StatusOr<LocalServiceOptions> programs = FindPrograms();
  if (!programs.ok()) return Fail(programs.status(), kExitFailed);
  const absl::StatusOr<std::string> work_folder = WorkFolderOf(spec);
  if (!work_folder.ok()) return Fail(work_folder.status(), ExitCodeOfNewJob(work_folder.status()));
  programs->folder = absl::StrCat(*work_folder, "/.bearing/service");
  programs->ranks = spec.ranks();
  programs->threads = ThreadsPerRank(options.threads, AvailableCores(), spec.ranks());
  programs->device = options.device;
  absl::StatusOr<std::unique_ptr<LocalService>> service = LocalService::Open(*std::move(programs));
  if (!service.ok()) return Fail(service.status());
  const absl::Status started = (*service)->StartCoordinator([&signals] { return signals.Take(); });
  if (absl::IsCancelled(started)) return kExitInterrupted;
  if (!started.ok()) {
    const int code = Fail(started, kExitFailed);
    PrintLogEnd((*service)->coordinator_log());
    return code;
  }
  JobsClient client((*service)->address());
  const int code = SubmitAndFollow(client, spec, service->get(), signals, globals);
  // Published: all that is left here are the logs of a job that went well.
  if (code == kExitOk && jobs::IsOutputInBucket(spec)) {
    std::error_code ignored;
    std::filesystem::remove_all(*work_folder, ignored);
  }
  return code;
}

int Run(const RunOptions& options, const Globals& globals, bool on_server) {
  absl::StatusOr<SignalFile> signals = SignalFile::Open();
  if (!signals.ok()) return Fail(signals.status());
  const absl::StatusOr<bearing::v1::JobSpec> spec = LoadSpec(options.spec);
  if (!spec.ok()) return Fail(spec.status(), kExitInvalid);
  if (!on_server) return RunLocally(options, *spec, *signals, globals);
  JobsClient client(globals.server, globals.security);
  if (options.dry_run) return CheckOnServer(client, *spec, globals);
  return SubmitAndFollow(client, *spec, /*service=*/nullptr, *signals, globals);
}

}  // namespace

bool RunsOnServer(const CommandLine& line) { return !line.globals.server.empty() || !line.globals.context.empty(); }

void AddRunCommand(CommandLine& line) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = line.app.add_subcommand("run", "Run a whole job on this machine, with no server set up");
  command->add_option("JOB", options->spec.file, "Job file (YAML, JSON or .textproto); - reads YAML from standard input")
      ->required();
  command->add_option("--ranks", options->spec.ranks, "Ranks (default: as in the job file, else 2)")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--tensor-parallel", options->spec.tensor_parallel,
                   "Ranks that hold one copy of the model (default: all); the copies share the work")
      ->check(CLI::Range(1, 1024));
  command->add_option("--out", options->spec.output, "Output folder or address (s3://...), instead of the job file's");
  command->add_option("--set", options->spec.sets, "Set a field of the job, e.g. select.kl_max=0.2 (repeatable)")
      ->allow_extra_args(false);
  command->add_option("--model", options->spec.model, "Model folder or address, instead of the job file's");
  command->add_option("--threads", options->threads, "Threads a rank (default: the cores shared out)")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--dry-run", options->dry_run, "Check job, prompts and model, and run nothing");
  command
      ->add_option("--device", options->device,
                   "Where the workers compute; auto = a GPU a rank where there are enough, else cpu")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->footer(
      "Starts a coordinator on loopback and the workers, runs the job, shows its progress and stops everything again.\n"
      "Logs: OUT/.bearing/service/. Ctrl-C cancels the job; running the same command again resumes it from the last\n"
      "finished stage. With --server or --context, the job runs there and nothing is started here.\n\n"
      "An OUT in a bucket is written when the job is done; until then the job works in TMPDIR/bearing-job-... (or below\n"
      "BEARING_STAGING), where a rerun resumes it.\n\n"
      "Example:\n  bearing run examples/refusal.yaml --ranks 2 --out out/refusal\n"
      "  bearing run examples/refusal.yaml --set select.kl_max=0.2 --dry-run");
  command->callback(
      [&line, options] { line.action = [&line, options] { return Run(*options, line.globals, RunsOnServer(line)); }; });
}

}  // namespace bearing::cli
