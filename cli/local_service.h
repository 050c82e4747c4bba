// A coordinator and a worker group of this machine for one `bearing run`: started on loopback, logs in one folder, stopped
// together. Not thread-safe. The destructor stops what still runs, so no process is left whatever the way out.
#ifndef BEARING_CLI_LOCAL_SERVICE_H_
#define BEARING_CLI_LOCAL_SERVICE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/process.h"

namespace bearing::cli {

struct LocalServiceOptions {
  std::string coordinator;  // Programs.
  std::string worker;
  std::string mpirun;
  std::string folder;  // For the store and the logs; made when missing.
  int ranks = 2;
  int threads = 1;              // A rank.
  std::string device = "auto";  // As of `bearing-worker serve`.
};

// Finds the three programs. NotFound says what to do about the missing one.
absl::StatusOr<LocalServiceOptions> FindPrograms();

class LocalService {
 public:
  // Claims the folder for this process and removes what an earlier run left of the store. AlreadyExists when another run uses
  // the folder.
  static absl::StatusOr<std::unique_ptr<LocalService>> Open(LocalServiceOptions options);
  ~LocalService();
  LocalService(const LocalService&) = delete;
  LocalService& operator=(const LocalService&) = delete;

  // Starts the coordinator and waits until it listens; `interrupted` is asked now and then and ends the wait (Cancelled).
  absl::Status StartCoordinator(const std::function<bool()>& interrupted);
  absl::Status StartWorkers();

  // "127.0.0.1:PORT", once the coordinator listens.
  const std::string& address() const { return address_; }
  std::string coordinator_log() const { return options_.folder + "/coordinator.log"; }
  std::string worker_log() const { return options_.folder + "/worker.log"; }

  // What ended although nobody asked for it, in words and with its log; nothing while all is well.
  struct EarlyEnd {
    std::string what;
    std::string log;
  };
  std::optional<EarlyEnd> FindEarlyEnd();

  // Ends all: the workers first, so that they can say goodbye to the coordinator.
  void Stop();

  // Stop, then remove the service folder and the folders above it that it made and that are empty: for a job that was refused.
  void StopAndRemove();

 private:
  LocalService(LocalServiceOptions options, int lock, std::vector<std::string> made)
      : options_(std::move(options)), lock_(lock), made_folders_(std::move(made)) {}

  LocalServiceOptions options_;
  int lock_ = -1;
  std::vector<std::string> made_folders_;  // Innermost first.
  std::string address_;
  std::optional<ChildProcess> coordinator_;
  std::optional<ChildProcess> workers_;
};

}  // namespace bearing::cli

#endif  // BEARING_CLI_LOCAL_SERVICE_H_
