#include "cli/launcher.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace bearing::cli {
namespace {

constexpr std::string_view kCommand = "__launch";

// As shells do for a program that cannot be started.
constexpr int kExitCannotExecute = 126;

constexpr int kAnyParent = 0;

// PROGRAM __launch SIGNAL PARENT ARGUMENTS...
constexpr int kArguments = 4;

std::vector<std::string> Behind(std::string signal, std::string parent, const std::vector<std::string>& arguments) {
  std::error_code error;
  std::vector<std::string> all = {std::filesystem::read_symlink("/proc/self/exe", error).string(), std::string(kCommand),
                                  std::move(signal), std::move(parent)};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return all;
}

}  // namespace

std::vector<std::string> BehindLauncher(const std::vector<std::string>& arguments) {
  return Behind(absl::StrCat(SIGTERM), absl::StrCat(getpid()), arguments);
}

std::vector<std::string> BehindKillLauncher(const std::vector<std::string>& arguments) {
  return Behind(absl::StrCat(SIGKILL), absl::StrCat(kAnyParent), arguments);
}

std::optional<int> RunLauncher(int argc, char** argv) {
  if (argc <= kArguments || argv[1] != kCommand) return std::nullopt;
  int signal = 0;
  int parent = kAnyParent;
  if (!absl::SimpleAtoi(argv[2], &signal) || !absl::SimpleAtoi(argv[3], &parent)) return kExitCannotExecute;
  if (prctl(PR_SET_PDEATHSIG, signal) != 0) return kExitCannotExecute;
  // The parent may have died before the request was made.
  if (parent != kAnyParent && getppid() != parent) return kExitCannotExecute;
  execv(argv[kArguments], argv + kArguments);
  std::fprintf(stderr, "cannot start %s: %s\n", argv[kArguments], std::strerror(errno));
  return kExitCannotExecute;
}

}  // namespace bearing::cli
