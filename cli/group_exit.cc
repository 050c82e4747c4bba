#include "cli/group_exit.h"

#include <sys/wait.h>

#include <regex>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace bearing::cli {
namespace {

int Number(const std::string& digits) {
  int value = 0;
  return absl::SimpleAtoi(digits, &value) ? value : 0;
}

}  // namespace

std::string GroupExit::Text() const {
  const std::string who = rank.has_value() ? absl::StrCat("rank ", *rank, " ") : "";
  return signal != 0 ? absl::StrCat(who, "was ended by signal ", signal) : absl::StrCat(who, "exit status ", exit_status);
}

GroupExit ReadGroupExit(int wait_status, const std::vector<std::string>& lines) {
  static const std::regex by_signal(R"(process rank (\d+) with PID \d+ on node \S+ exited on signal (\d+))");
  static const std::regex name(R"(Process name: \[\[\d+,\d+\],(\d+)\])");
  static const std::regex code(R"(Exit code:\s+(\d+))");
  GroupExit exit;
  std::smatch match;
  for (const std::string& line : lines) {
    if (std::regex_search(line, match, by_signal)) {
      exit.rank = Number(match[1]);
      exit.signal = Number(match[2]);
      exit.exit_status = 0;
    } else if (std::regex_search(line, match, name)) {
      exit.rank = Number(match[1]);
    } else if (std::regex_search(line, match, code)) {
      exit.exit_status = Number(match[1]);
    }
  }
  if (!exit.ok()) return exit;
  // mpirun said nothing: its own end must do.
  if (WIFSIGNALED(wait_status)) exit.signal = WTERMSIG(wait_status);
  if (WIFEXITED(wait_status)) exit.exit_status = WEXITSTATUS(wait_status);
  return exit;
}

}  // namespace bearing::cli
