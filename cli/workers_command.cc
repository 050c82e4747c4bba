// `bearing workers`: a worker group of this machine for a server, started again when it is lost.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bearing/v1/worker_service.grpc.pb.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/group_exit.h"
#include "cli/jobs_client.h"
#include "cli/launcher.h"
#include "cli/local_service.h"
#include "cli/mpirun.h"
#include "cli/process.h"
#include "cli/signals.h"
#include "rpc/client_connection.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

constexpr absl::Duration kGroupPoll = absl::Milliseconds(100);
constexpr absl::Duration kGroupGrace = absl::Seconds(5);
// A group that lived this long was well: the next pause is short again.
constexpr absl::Duration kLivedWell = absl::Minutes(1);
constexpr int kExitReportTries = 5;
constexpr int kExitLines = 200;

struct WorkersOptions {
  int ranks = 1;
  int threads = 0;
  std::string device = "auto";
  std::string log = "bearing-workers.log";
  int max_restarts = -1;
  std::optional<double> timeout_minutes;
};

// Tells the server, so that the job need not wait for its lease to run out. Tried a few times: the server may be starting
// again.
absl::Status ReportExit(const std::string& group, const GroupExit& exit, const Globals& globals) {
  BEARING_ASSIGN_OR_RETURN(const auto connection, rpc::ClientConnection::Open(globals.server, globals.security));
  const auto stub = bearing::v1::WorkerService::NewStub(connection->channel());
  bearing::v1::ReportExitRequest request;
  request.set_group_id(group);
  if (exit.rank.has_value()) request.set_rank(*exit.rank);
  request.set_signal(exit.signal);
  request.set_exit_status(exit.exit_status);
  absl::Status status;
  for (int i = 0; i < kExitReportTries; ++i) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    BEARING_RETURN_IF_ERROR(connection->Authorize(&context));
    bearing::v1::ReportExitResponse response;
    status = rpc::FromGrpc(stub->ReportExit(&context, request, &response));
    if (!absl::IsUnavailable(status)) return status;
    absl::SleepFor(absl::Seconds(1));
  }
  return status;
}

// Credentials go to the workers by the environment, as absolute paths.
std::map<std::string, std::string> EnvironmentOf(const rpc::ClientSecurity& security, int threads) {
  std::map<std::string, std::string> environment = ThreadEnvironment(threads);
  const auto set = [&](const char* name, const std::string& path) {
    // Empty, too: `security` says all, and this process may have been told more for another server.
    environment[name] = path.empty() ? "" : std::filesystem::absolute(path).string();
  };
  set("BEARING_CA_FILE", security.ca_file);
  set("BEARING_CERT_FILE", security.cert_file);
  set("BEARING_KEY_FILE", security.key_file);
  set("BEARING_TOKEN_FILE", security.token_file);
  environment["BEARING_TLS"] = security.tls ? "1" : "";
  return environment;
}

// What was written to the log since it had `size` bytes.
std::vector<std::string> NewLines(const std::string& path, uintmax_t size) {
  std::error_code error;
  std::filesystem::path part = path;
  const uintmax_t now = std::filesystem::file_size(part, error);
  std::vector<std::string> lines = LastLines(path, kExitLines);
  if (error || now <= size) return {};
  // From the end, lines as long as the new part.
  uintmax_t left = now - size;
  size_t first = lines.size();
  while (first > 0 && lines[first - 1].size() + 1 <= left) {
    left -= lines[first - 1].size() + 1;
    --first;
  }
  lines.erase(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(first));
  return lines;
}

// Waits until the group has ended or a signal came; nullopt for the latter, with the group stopped.
std::optional<int> Watch(ChildProcess& group, SignalFile& signals) {
  while (true) {
    if (const std::optional<int> ended = group.Poll()) return ended;
    if (signals.Take()) {
      group.Stop(kGroupGrace);
      return std::nullopt;
    }
    absl::SleepFor(kGroupPoll);
  }
}

int Work(const WorkersOptions& options, const Globals& globals) {
  absl::StatusOr<SignalFile> signals = SignalFile::Open();
  if (!signals.ok()) return Fail(signals.status());
  if (!globals.security.token.empty()) {
    return Fail(absl::InvalidArgumentError(
        "workers read their token from a file, and the context holds it itself: bearing context set NAME --token-file FILE"));
  }
  const absl::StatusOr<LocalServiceOptions> programs = FindPrograms();
  if (!programs.ok()) return Fail(programs.status(), kExitFailed);
  if (const absl::Status adopted = AdoptOrphans(); !adopted.ok()) return Fail(adopted);
  const std::map<std::string, std::string> environment =
      EnvironmentOf(globals.security, ThreadsPerRank(options.threads, AvailableCores(), options.ranks));
  int restarts = 0;
  for (int failures = 0;; ++restarts) {
    const std::string id = absl::StrCat("group-", NewRequestId());
    std::vector<std::string> worker = {programs->worker, "serve",        "--coordinator", globals.server,
                                       "--device",       options.device, "--group-id",    id};
    if (options.timeout_minutes.has_value()) {
      worker.insert(worker.begin() + 1, {"--collective-timeout-minutes", absl::StrCat(*options.timeout_minutes)});
    }
    if (globals.security.allow_plaintext) worker.emplace_back("--insecure-plaintext-token");
    const std::vector<std::string> arguments = MpirunArguments(
        {.mpirun = programs->mpirun, .ranks = options.ranks, .is_root = geteuid() == 0}, BehindKillLauncher(worker));
    std::error_code error;
    const uintmax_t before = std::filesystem::file_size(options.log, error);
    const absl::Time begin = absl::Now();
    absl::StatusOr<ChildProcess> group =
        ChildProcess::Start({.arguments = BehindLauncher(arguments), .environment = environment, .log_path = options.log});
    if (!group.ok()) return Fail(group.status(), kExitFailed);
    std::cerr << "started " << id << ": ranks=" << options.ranks << " server=" << globals.server << " log=" << options.log
              << '\n';
    const std::optional<int> ended = Watch(*group, *signals);
    KillChildren();
    RemoveSessionFolder(group->pid());
    if (!ended.has_value()) return kExitOk;
    const GroupExit exit = ReadGroupExit(*ended, NewLines(options.log, error ? 0 : before));
    if (exit.ok()) return kExitOk;
    const absl::Status told = ReportExit(id, exit, globals);
    std::cerr << "lost " << id << ": " << exit.Text() << (told.ok() ? "" : absl::StrCat("; not reported: ", told.message()))
              << '\n';
    failures = absl::Now() - begin > kLivedWell ? 0 : failures + 1;
    if (options.max_restarts >= 0 && restarts >= options.max_restarts) {
      for (const std::string& line : LastLines(options.log, 10)) std::cerr << "  " << line << '\n';
      return kExitFailed;
    }
    // 1, 2, 4, ... 30 seconds, in steps that look at signals.
    const absl::Time next = absl::Now() + absl::Seconds(std::min(30, (1 << std::min(failures, 5)) / 2));
    while (absl::Now() < next) {
      if (signals->Take()) return kExitOk;
      absl::SleepFor(kGroupPoll);
    }
  }
}

}  // namespace

void AddWorkersCommand(CommandLine& line) {
  auto options = std::make_shared<WorkersOptions>();
  CLI::App* command =
      line.app.add_subcommand("workers", "Run a worker group of this machine for a server, and keep it running");
  command->add_option("--ranks", options->ranks, "Ranks of the group")->check(CLI::Range(1, 1024))->capture_default_str();
  command->add_option("--threads", options->threads, "Threads a rank (default: the cores shared out)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--device", options->device, "Where the workers compute")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--log", options->log, "File the group's output is appended to")->capture_default_str();
  command
      ->add_option("--collective-timeout-minutes", options->timeout_minutes,
                   "Ranks that wait longer than this for one that hangs end the group (default: 10; 0 = never)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--max-restarts", options->max_restarts, "End after so many groups were lost (default: never)")
      ->check(CLI::Range(0, 1'000'000));
  command->footer(
      "--server is the address that the server has for workers. A group that ends by itself is reported to the server with "
      "rank\n"
      "and signal, so that its job goes on at once, and is started again. SIGTERM and Ctrl-C end it.\n\n"
      "Example:\n  bearing workers --server 127.0.0.1:7070 --ranks 2");
  command->callback([&line, options] { line.action = [&line, options] { return Work(*options, line.globals); }; });
}

}  // namespace bearing::cli
