#include "cli/mpirun.h"

#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/process.h"

namespace bearing::cli {

int AvailableCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return std::max(1, CPU_COUNT(&cores));
  return std::max(1u, std::thread::hardware_concurrency());
}

int ThreadsPerRank(int wanted, int cores, int ranks) { return wanted > 0 ? wanted : std::max(1, cores / std::max(1, ranks)); }

std::map<std::string, std::string> ThreadEnvironment(int threads) {
  return {{"OMP_NUM_THREADS", absl::StrCat(threads)}, {"OMP_WAIT_POLICY", "PASSIVE"}};
}

std::vector<std::string> MpirunArguments(const MpirunOptions& options, const std::vector<std::string>& program) {
  std::vector<std::string> all = {options.mpirun};
  if (options.is_root) all.push_back("--allow-run-as-root");
  // Ranks share the machine with each other and with whatever else runs: no core is theirs alone.
  for (const char* argument : {"--oversubscribe", "--bind-to", "none"}) all.emplace_back(argument);
  for (const auto& [name, value] : ThreadEnvironment(1)) all.insert(all.end(), {"-x", name});
  // Components without their hardware, and help texts once a rank, are noise in the log.
  all.insert(all.end(), {"--mca", "btl_base_warn_component_unused", "0", "--mca", "orte_base_help_aggregate", "1"});
  all.insert(all.end(), {"-n", absl::StrCat(options.ranks)});
  all.insert(all.end(), program.begin(), program.end());
  return all;
}

void RemoveSessionFolder(pid_t mpirun) {
  namespace fs = std::filesystem;
  // Where Open MPI looks for a place, in its order.
  fs::path place = "/tmp";
  for (const char* name : {"TMP", "TEMP", "TMPDIR"}) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') place = value;
  }
  const std::string user = absl::StrCat(".", geteuid());
  std::error_code error;
  for (fs::directory_iterator at(place, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (!absl::StartsWith(name, "ompi.") || !absl::EndsWith(name, user)) continue;
    // Others may write to the place: nothing is followed, and nothing of others is touched.
    struct stat about {};
    if (lstat(at->path().c_str(), &about) != 0 || !S_ISDIR(about.st_mode) || about.st_uid != geteuid()) continue;
    std::error_code ignored;
    fs::remove_all(at->path() / absl::StrCat("pid.", mpirun), ignored);
  }
}

absl::StatusOr<std::string> FindMpirun() {
  absl::StatusOr<std::string> path = FindInPath("mpirun");
  if (path.ok()) return path;
  return absl::NotFoundError("mpirun was not found in PATH: install Open MPI (Debian: apt-get install openmpi-bin)");
}

}  // namespace bearing::cli
