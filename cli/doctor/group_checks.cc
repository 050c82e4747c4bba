#include "cli/doctor/group_checks.h"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "cli/launcher.h"
#include "cli/mpirun.h"
#include "cli/process.h"
#include "cli/quantity.h"

namespace bearing::cli {
namespace {

using Result = Finding::Result;

constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr int kLogLines = 12;
constexpr int64_t kLittleMemory = int64_t{1} << 30;

// The ranks' own words rather than mpirun's frame around them.
std::string Words(const std::vector<std::string>& lines) {
  std::vector<std::string> own;
  for (const std::string& line : lines) {
    if (line.rfind("bearing", 0) == 0) own.push_back(line);
  }
  return OneLine(absl::StrJoin(own.empty() ? lines : own, " "));
}

Finding RanksBroken(const std::string& found) {
  return {"ranks", Result::kBroken, found,
          "start them by hand and read what they say: mpirun -n 2 bearing-worker check (as root with --allow-run-as-root)"};
}

}  // namespace

std::vector<Finding> ReadGroupCheck(const std::string& line, const GroupOptions& options) {
  const nlohmann::json said = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!said.is_object() || !said.contains("ranks") || !said["ranks"].is_number_integer() ||
      !said.value("memory_bytes_per_rank", nlohmann::json()).is_number_integer()) {
    return {RanksBroken(absl::StrCat("bearing-worker check printed no result: ", OneLine(line)))};
  }
  std::vector<Finding> findings;
  const int ranks = said["ranks"].get<int>();
  if (ranks != options.ranks) {
    findings.push_back({"ranks", Result::kBroken, absl::StrCat("found groups of ", ranks, ", not one of ", options.ranks),
                        "bearing-worker must be built with the Open MPI whose mpirun is first in PATH"});
  } else {
    findings.push_back(
        {"ranks", Result::kOk,
         absl::StrFormat("%d started and reached each other, 16 MiB in %.3f s", ranks, said.value("exchange_seconds", 0.0)),
         ""});
  }
  const std::string device = said.value("device", "cpu");
  const std::string why_cpu = OneLine(said.value("why_cpu", ""));
  findings.push_back({"device", Result::kOk, why_cpu.empty() ? device : absl::StrCat(device, " (", why_cpu, ")"), ""});
  const auto memory = said["memory_bytes_per_rank"].get<int64_t>();
  Finding bytes{"memory", Result::kOk, absl::StrCat(FormatBytes(static_cast<double>(memory)), " a rank"), ""};
  if (memory < kLittleMemory) {
    bytes.result = Result::kWarning;
    bytes.mend =
        "end other programs, use fewer ranks, or raise the limit of the container; bearing plan JOB says what a job needs";
  }
  findings.push_back(bytes);
  return findings;
}

std::vector<Finding> CheckGroup(const GroupOptions& options) {
  std::vector<Finding> findings;
  const absl::StatusOr<std::string> mpirun = FindMpirun();
  if (!mpirun.ok()) {
    findings.push_back({"mpirun", Result::kBroken, "not in PATH", "install Open MPI (Debian: apt-get install openmpi-bin)"});
    return findings;
  }
  findings.push_back({"mpirun", Result::kOk, *mpirun, ""});
  const absl::StatusOr<std::string> worker = FindSibling("bearing-worker", "BEARING_WORKER");
  if (!worker.ok()) {
    findings.push_back({"ranks", Result::kSkipped, "no bearing-worker to start", ""});
    return findings;
  }
  std::string log = (std::filesystem::temp_directory_path() / "bearing-doctor-XXXXXX").string();
  const int file = mkstemp(log.data());
  if (file < 0) {
    findings.push_back({"ranks", Result::kSkipped, absl::StrCat("no file can be made: ", log), ""});
    return findings;
  }
  close(file);
  const absl::Cleanup remove = [&log] { unlink(log.c_str()); };
  const std::vector<std::string> rank = {*worker, "--collective-timeout-minutes", "1", "check", "--device", options.device};
  absl::StatusOr<ChildProcess> child = ChildProcess::Start(
      {.arguments = BehindLauncher(
           MpirunArguments({.mpirun = *mpirun, .ranks = options.ranks, .is_root = geteuid() == 0}, BehindKillLauncher(rank))),
       .environment = ThreadEnvironment(1),
       .log_path = log});
  if (!child.ok()) {
    findings.push_back(RanksBroken(OneLine(std::string(child.status().message()))));
    return findings;
  }
  const absl::Time deadline = absl::Now() + kPatience;
  std::optional<int> ended = child->Poll();
  while (!ended.has_value() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
    ended = child->Poll();
  }
  const std::vector<std::string> lines = LastLines(log, kLogLines);
  if (!ended.has_value()) {
    findings.push_back(RanksBroken(absl::StrCat("no result after 2 minutes: ", Words(lines))));
    return findings;
  }
  if (*ended != 0) {
    findings.push_back(RanksBroken(absl::StrCat(DescribeWaitStatus(*ended), ": ", Words(lines))));
    return findings;
  }
  std::string result;
  for (const std::string& line : lines) {
    if (line.rfind('{', 0) == 0) result = line;
  }
  for (Finding& finding : ReadGroupCheck(result, options)) findings.push_back(std::move(finding));
  return findings;
}

}  // namespace bearing::cli
