// Child processes that never outlive this one: each in its own process group, its output in a log file, ended as a group.
// Not thread-safe; start children from the main thread (the kernel ties "parent died" to the thread that started them).
#ifndef BEARING_CLI_PROCESS_H_
#define BEARING_CLI_PROCESS_H_

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace bearing::cli {

struct ProcessOptions {
  // arguments[0] is the path of the program.
  std::vector<std::string> arguments;
  // Variables that are set on top of this process's.
  std::map<std::string, std::string> environment;
  // Standard output and error are appended here.
  std::string log_path;
};

class ChildProcess {
 public:
  // Starts the program. A program that is not there is NotFound.
  static absl::StatusOr<ChildProcess> Start(const ProcessOptions& options);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  // Kills the group when it still runs.
  ~ChildProcess();

  pid_t pid() const { return pid_; }

  // The wait status once the child has ended, nothing while it runs.
  std::optional<int> Poll();

  // Asks the group to end (SIGTERM), waits up to `grace`, then kills it. Returns when the child is gone.
  void Stop(absl::Duration grace);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_ = -1;
  std::optional<int> wait_status_;
};

// "exit status 3", "signal 9 (Killed)".
std::string DescribeWaitStatus(int wait_status);

// Makes orphans of our children (ranks that mpirun left behind) children of this process, so that KillChildren finds them.
absl::Status AdoptOrphans();

// Kills every child of this process, adopted orphans included, until there is none.
void KillChildren();

// Becomes another program (arguments[0] is its path). Returns only when it fails.
absl::Status BecomeProgram(const std::vector<std::string>& arguments);

// The last `count` lines of a text file; empty when it cannot be read.
std::vector<std::string> LastLines(const std::string& path, int count);

// The program of this name in PATH. NotFound when there is none.
absl::StatusOr<std::string> FindInPath(const std::string& name);

// The program beside the running one, or the value of the variable `variable` when that is set. NotFound naming both.
absl::StatusOr<std::string> FindSibling(const std::string& name, const char* variable);

}  // namespace bearing::cli

#endif  // BEARING_CLI_PROCESS_H_
