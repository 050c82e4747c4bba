#include "cli/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace bearing::cli {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(20);

// This process's environment with `extra` on top, as "NAME=value".
std::vector<std::string> Environment(const std::map<std::string, std::string>& extra) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (!extra.contains(std::string(text.substr(0, text.find('='))))) variables.emplace_back(text);
  }
  for (const auto& [name, value] : extra) variables.push_back(absl::StrCat(name, "=", value));
  return variables;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

bool IsProgram(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

// Processes whose parent is this one, from /proc.
std::vector<pid_t> Children() {
  std::vector<pid_t> children;
  DIR* folder = opendir("/proc");
  if (folder == nullptr) return children;
  while (const dirent* entry = readdir(folder)) {
    int pid = 0;
    if (!absl::SimpleAtoi(entry->d_name, &pid)) continue;
    std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
    std::string text;
    std::getline(file, text);
    // "pid (name) state ppid ...": the name may hold anything, so the last ')' ends it.
    const size_t end = text.rfind(')');
    if (end == std::string::npos) continue;
    const std::vector<std::string> fields = absl::StrSplit(text.substr(end + 1), ' ', absl::SkipEmpty());
    int parent = 0;
    if (fields.size() > 1 && absl::SimpleAtoi(fields[1], &parent) && parent == getpid()) children.push_back(pid);
  }
  closedir(folder);
  return children;
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const ProcessOptions& options) {
  const std::string& program = options.arguments.at(0);
  if (!IsProgram(program)) return absl::NotFoundError(absl::StrCat("not a program: ", program));
  std::vector<std::string> arguments = options.arguments;
  std::vector<std::string> variables = Environment(options.environment);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);

  // The child must not inherit the blocked signals of SignalFile, or it could not be asked to end.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, program.c_str(), &files, &attributes, Pointers(arguments).data(), Pointers(variables).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("cannot start a program: program=", program, " log=", options.log_path));
  }
  return ChildProcess(pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), wait_status_(std::exchange(other.wait_status_, std::nullopt)) {}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) Stop(absl::ZeroDuration());
}

std::optional<int> ChildProcess::Poll() {
  if (wait_status_.has_value() || pid_ <= 0) return wait_status_;
  int status = 0;
  const pid_t ended = waitpid(pid_, &status, WNOHANG);
  if (ended == pid_) wait_status_ = status;
  if (ended < 0 && errno == ECHILD) wait_status_ = 0;
  return wait_status_;
}

void ChildProcess::Stop(absl::Duration grace) {
  if (pid_ <= 0) return;
  if (grace > absl::ZeroDuration() && !Poll().has_value()) {
    kill(-pid_, SIGTERM);
    const absl::Time deadline = absl::Now() + grace;
    while (!Poll().has_value() && absl::Now() < deadline) absl::SleepFor(kPollInterval);
  }
  // Also when the leader is gone: others of its group may be left.
  kill(-pid_, SIGKILL);
  while (!Poll().has_value()) absl::SleepFor(kPollInterval);
  pid_ = -1;
}

std::string DescribeWaitStatus(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return absl::StrCat("signal ", WTERMSIG(wait_status), " (", strsignal(WTERMSIG(wait_status)), ")");
  }
  return absl::StrCat("exit status ", WEXITSTATUS(wait_status));
}

absl::Status AdoptOrphans() {
  if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) return absl::ErrnoToStatus(errno, "cannot become a subreaper");
  return absl::OkStatus();
}

void KillChildren() {
  // The orphans of a killed child become ours, so one pass is not enough.
  for (std::vector<pid_t> children = Children(); !children.empty(); children = Children()) {
    for (const pid_t pid : children) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }
}

absl::Status BecomeProgram(const std::vector<std::string>& arguments) {
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  execv(pointers[0], pointers.data());
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot start a program: ", arguments[0]));
}

std::vector<std::string> LastLines(const std::string& path, int count) {
  std::ifstream file(path);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(std::move(line));
    if (static_cast<int>(lines.size()) > count) lines.pop_front();
  }
  return {lines.begin(), lines.end()};
}

absl::StatusOr<std::string> FindInPath(const std::string& name) {
  const char* path = std::getenv("PATH");
  for (const std::string& folder :
       std::vector<std::string>(absl::StrSplit(path == nullptr ? "" : path, ':', absl::SkipEmpty()))) {
    std::string candidate = absl::StrCat(folder, "/", name);
    if (IsProgram(candidate)) return candidate;
  }
  return absl::NotFoundError(absl::StrCat("no such program in PATH: ", name));
}

absl::StatusOr<std::string> FindSibling(const std::string& name, const char* variable) {
  if (const char* path = std::getenv(variable); path != nullptr && *path != '\0') {
    if (IsProgram(path)) return std::string(path);
    return absl::NotFoundError(absl::StrCat(variable, " does not name a program: ", path));
  }
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  std::string sibling = (self.parent_path() / name).string();
  if (!error && IsProgram(sibling)) return sibling;
  return absl::NotFoundError(absl::StrCat(name, " was not found: expected it at ", sibling,
                                          "; build it with scripts/setup, or set ", variable, " to its path"));
}

}  // namespace bearing::cli
