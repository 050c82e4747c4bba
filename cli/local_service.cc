#include "cli/local_service.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/launcher.h"
#include "cli/mpirun.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kLockName[] = "lock";
constexpr absl::Duration kCoordinatorStart = absl::Seconds(30);
constexpr absl::Duration kStopGrace = absl::Seconds(5);

// Makes the folder and says which folders of its path it had to make, innermost first.
absl::StatusOr<std::vector<std::string>> MakeFolders(const std::string& folder) {
  std::vector<std::string> made;
  std::error_code error;
  for (fs::path path = folder; !path.empty() && !fs::exists(path, error); path = path.parent_path()) {
    made.push_back(path.string());
    if (path == path.parent_path()) break;
  }
  fs::create_directories(folder, error);
  if (error)
    return absl::PermissionDeniedError(absl::StrCat("cannot make a folder: path=", folder, " error=", error.message()));
  return made;
}

// Everything in the service folder but the lock. The folder holds plain files of ours alone.
void RemoveLeftovers(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) paths.push_back(entry.path());
  for (const fs::path& path : paths) {
    if (path.filename() != kLockName) fs::remove(path, error);
  }
}

// The address in the port file, "" while it is not there yet.
std::string ReadPortFile(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  file >> text;
  int port = 0;
  if (absl::SimpleAtoi(text, &port)) return absl::StrCat("127.0.0.1:", port);
  return text;
}

}  // namespace

absl::StatusOr<LocalServiceOptions> FindPrograms() {
  LocalServiceOptions options;
  BEARING_ASSIGN_OR_RETURN(options.coordinator, FindSibling("bearing-coordinator", "BEARING_COORDINATOR"));
  BEARING_ASSIGN_OR_RETURN(options.worker, FindSibling("bearing-worker", "BEARING_WORKER"));
  BEARING_ASSIGN_OR_RETURN(options.mpirun, FindMpirun());
  return options;
}

absl::StatusOr<std::unique_ptr<LocalService>> LocalService::Open(LocalServiceOptions options) {
  BEARING_ASSIGN_OR_RETURN(std::vector<std::string> made, MakeFolders(options.folder));
  const std::string lock_path = absl::StrCat(options.folder, "/", kLockName);
  const int lock = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write to the output folder: path=", lock_path));
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    close(lock);
    return absl::AlreadyExistsError(absl::StrCat("another `bearing run` uses this output folder: path=", options.folder));
  }
  // Nothing in the store is needed again: a run is resumed from the artifacts in the output folder.
  RemoveLeftovers(options.folder);
  BEARING_RETURN_IF_ERROR(AdoptOrphans());
  return std::unique_ptr<LocalService>(new LocalService(std::move(options), lock, std::move(made)));
}

LocalService::~LocalService() {
  Stop();
  if (lock_ >= 0) close(lock_);
}

absl::Status LocalService::StartCoordinator(const std::function<bool()>& interrupted) {
  const std::string port_file = absl::StrCat(options_.folder, "/port");
  absl::StatusOr<ChildProcess> child =
      ChildProcess::Start({.arguments = BehindLauncher({options_.coordinator, "--listen", "127.0.0.1:0", "--store",
                                                        absl::StrCat(options_.folder, "/jobs.db"), "--port-file", port_file}),
                           .environment = {},
                           .log_path = coordinator_log()});
  if (!child.ok()) return child.status();
  coordinator_.emplace(*std::move(child));
  const absl::Time deadline = absl::Now() + kCoordinatorStart;
  while (absl::Now() < deadline) {
    address_ = ReadPortFile(port_file);
    if (!address_.empty()) return absl::OkStatus();
    if (const std::optional<int> ended = coordinator_->Poll()) {
      return absl::InternalError(absl::StrCat("the coordinator ended while it started: ", DescribeWaitStatus(*ended)));
    }
    if (interrupted()) return absl::CancelledError("interrupted");
    absl::SleepFor(absl::Milliseconds(10));
  }
  return absl::DeadlineExceededError(
      absl::StrCat("the coordinator does not listen after ", absl::FormatDuration(kCoordinatorStart)));
}

absl::Status LocalService::StartWorkers() {
  const std::vector<std::string> arguments =
      MpirunArguments({.mpirun = options_.mpirun, .ranks = options_.ranks, .is_root = geteuid() == 0},
                      BehindKillLauncher({options_.worker, "serve", "--coordinator", address_, "--device", options_.device}));
  std::map<std::string, std::string> environment = ThreadEnvironment(options_.threads);
  // The credentials of whoever calls are for another server: this one is on loopback, in plaintext, without tokens.
  for (const char* name : {"BEARING_CA_FILE", "BEARING_CERT_FILE", "BEARING_KEY_FILE", "BEARING_TOKEN_FILE", "BEARING_TLS"}) {
    environment[name] = "";
  }
  environment["BEARING_KEEP_STAGED"] = "true";  // The run that Ctrl-C ends is gone on with by the same command.
  absl::StatusOr<ChildProcess> child =
      ChildProcess::Start({.arguments = BehindLauncher(arguments), .environment = environment, .log_path = worker_log()});
  if (!child.ok()) return child.status();
  workers_.emplace(*std::move(child));
  return absl::OkStatus();
}

std::optional<LocalService::EarlyEnd> LocalService::FindEarlyEnd() {
  if (workers_.has_value()) {
    if (const std::optional<int> ended = workers_->Poll()) {
      return EarlyEnd{absl::StrCat("the worker group ended before the job did (", DescribeWaitStatus(*ended), ")"),
                      worker_log()};
    }
  }
  if (coordinator_.has_value()) {
    if (const std::optional<int> ended = coordinator_->Poll()) {
      return EarlyEnd{absl::StrCat("the coordinator ended before the job did (", DescribeWaitStatus(*ended), ")"),
                      coordinator_log()};
    }
  }
  return std::nullopt;
}

void LocalService::Stop() {
  if (!workers_.has_value() && !coordinator_.has_value()) return;
  const pid_t mpirun = workers_.has_value() ? workers_->pid() : 0;
  if (workers_.has_value()) workers_->Stop(kStopGrace);
  // Killed at once: nothing in its store is needed again, and draining takes it a second.
  if (coordinator_.has_value()) coordinator_->Stop(absl::ZeroDuration());
  workers_.reset();
  coordinator_.reset();
  KillChildren();
  if (mpirun > 0) RemoveSessionFolder(mpirun);
}

void LocalService::StopAndRemove() {
  Stop();
  RemoveLeftovers(options_.folder);
  std::error_code error;
  fs::remove(fs::path(options_.folder) / kLockName, error);
  for (const std::string& folder : made_folders_) {
    // Only an empty folder goes.
    if (rmdir(folder.c_str()) != 0) return;
  }
}

}  // namespace bearing::cli
