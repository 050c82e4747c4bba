#include "cli/calibration.h"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "cli/launcher.h"
#include "cli/mpirun.h"
#include "cli/process.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(3);
constexpr int kLogLines = 5;

std::vector<std::string> WorkerArguments(const std::string& worker, const CalibrationOptions& options) {
  std::vector<std::string> arguments = {worker,
                                        "calibrate",
                                        "--config",
                                        options.config,
                                        "--dtype",
                                        options.dtype,
                                        "--plan-ranks",
                                        absl::StrCat(options.plan_ranks),
                                        "--prefix-tokens",
                                        absl::StrCat(options.prefix_tokens),
                                        "--prompt-tokens",
                                        absl::StrCat(options.prompt_tokens)};
  if (!options.write_to.empty()) arguments.insert(arguments.end(), {"--write-to", options.write_to});
  return arguments;
}

// Where the program's output goes while it runs.
absl::StatusOr<std::string> MakeTemporaryFile() {
  std::string path = (std::filesystem::temp_directory_path() / "bearing-calibrate-XXXXXX").string();
  const int file = mkstemp(path.data());
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create a file: ", path));
  close(file);
  return path;
}

absl::StatusOr<jobs::Machine> FindMachine(const std::string& log) {
  std::ifstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("{", 0) == 0) return jobs::ParseMachine(line, "bearing-worker calibrate");
  }
  return absl::InternalError(
      absl::StrCat("bearing-worker calibrate printed no measurement: ", absl::StrJoin(LastLines(log, kLogLines), " | ")));
}

}  // namespace

absl::StatusOr<jobs::Machine> MeasureMachine(const CalibrationOptions& options) {
  BEARING_ASSIGN_OR_RETURN(const std::string worker, FindSibling("bearing-worker", "BEARING_WORKER"));
  BEARING_ASSIGN_OR_RETURN(const std::string mpirun, FindMpirun());
  BEARING_ASSIGN_OR_RETURN(const std::string log, MakeTemporaryFile());
  const absl::Cleanup remove = [&log] { unlink(log.c_str()); };
  const int ranks = static_cast<int>(options.ranks);
  const std::vector<std::string> arguments = MpirunArguments({.mpirun = mpirun, .ranks = ranks, .is_root = geteuid() == 0},
                                                             BehindKillLauncher(WorkerArguments(worker, options)));
  BEARING_ASSIGN_OR_RETURN(
      ChildProcess child,
      ChildProcess::Start({.arguments = BehindLauncher(arguments),
                           .environment = ThreadEnvironment(ThreadsPerRank(options.threads, AvailableCores(), ranks)),
                           .log_path = log}));
  const absl::Time deadline = absl::Now() + kPatience;
  std::optional<int> ended = child.Poll();
  while (!ended.has_value() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
    ended = child.Poll();
  }
  if (!ended.has_value())
    return absl::DeadlineExceededError("the calibration took more than 3 minutes; give --machine or --gpu");
  if (*ended != 0) {
    return absl::InternalError(absl::StrCat("bearing-worker calibrate: ", DescribeWaitStatus(*ended), ": ",
                                            absl::StrJoin(LastLines(log, kLogLines), " | ")));
  }
  return FindMachine(log);
}

}  // namespace bearing::cli
