#include "worker/comm/bootstrap.h"

#include <charconv>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::comm {
namespace {

using Variables = std::function<const char*(const char*)>;

constexpr int kMostRanks = 1 << 20;
constexpr int kDefaultPort = 29500;  // As torchrun's.
// Slurm jobs that share a node take different ports, below those that the system hands out by itself.
constexpr int kSlurmPort = 15000;
constexpr int kSlurmPorts = 10000;

bool IsSet(const Variables& variable, const char* name) {
  const char* value = variable(name);
  return value != nullptr && *value != '\0';
}

absl::StatusOr<int> Number(const Variables& variable, const std::string& launcher, const char* name, int low, int high) {
  if (!IsSet(variable, name)) return absl::InvalidArgumentError(absl::StrCat(name, ": is not set, but ", launcher, " sets it"));
  const std::string_view text = variable(name);
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number >= low && number <= high) return number;
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": must be a number from ", low, " to ", high, ": \"", std::string(text), "\""));
}

struct Names {
  const char* launcher;
  const char* rank;
  const char* size;
  const char* local_rank;  // Optional.
  const char* host;        // Empty: found otherwise.
};

// Rank, size, local rank, and the host of rank 0; the port is MASTER_PORT or `port`.
absl::StatusOr<Bootstrap> ReadStore(const Variables& variable, const Names& names, int port) {
  Bootstrap found;
  found.way = Bootstrap::Way::kStore;
  found.launcher = names.launcher;
  BEARING_ASSIGN_OR_RETURN(found.store.size, Number(variable, names.launcher, names.size, 1, kMostRanks));
  BEARING_ASSIGN_OR_RETURN(found.store.rank, Number(variable, names.launcher, names.rank, 0, found.store.size - 1));
  if (IsSet(variable, names.local_rank)) {
    BEARING_ASSIGN_OR_RETURN(found.local_rank, Number(variable, names.launcher, names.local_rank, 0, kMostRanks));
  }
  // A group of one meets nobody.
  if (found.store.size == 1) found.way = Bootstrap::Way::kAlone;
  if (found.store.size == 1) return found;
  found.store.port = port;
  if (port == 0 || IsSet(variable, "MASTER_PORT")) {
    BEARING_ASSIGN_OR_RETURN(found.store.port, Number(variable, names.launcher, "MASTER_PORT", 1, 65535));
  }
  if (*names.host == '\0') return found;
  if (!IsSet(variable, names.host)) {
    return absl::InvalidArgumentError(absl::StrCat(names.host, ": is not set: it must name the host of rank 0"));
  }
  found.store.host = variable(names.host);
  return found;
}

absl::StatusOr<Bootstrap> ReadTorchrun(const Variables& variable) {
  constexpr Names kNames{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"};
  BEARING_ASSIGN_OR_RETURN(Bootstrap found, ReadStore(variable, kNames, /*port=*/0));
  // torchrun's agent serves a store at this port itself, and keeps it when it starts the ranks again.
  const char* agent = variable("TORCHELASTIC_USE_AGENT_STORE");
  if (agent != nullptr && std::string_view(agent) == "True") {
    const char* restarts = variable("TORCHELASTIC_RESTART_COUNT");
    found.store.served_elsewhere = true;
    found.store.prefix = absl::StrCat("bearing/", restarts == nullptr ? "0" : restarts, "/");
  }
  return found;
}

absl::StatusOr<Bootstrap> ReadSlurm(const Variables& variable) {
  constexpr Names kNames{"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""};
  BEARING_ASSIGN_OR_RETURN(const int job, Number(variable, kNames.launcher, "SLURM_JOB_ID", 0, 2147483647));
  int step = 0;
  if (IsSet(variable, "SLURM_STEP_ID")) {
    BEARING_ASSIGN_OR_RETURN(step, Number(variable, kNames.launcher, "SLURM_STEP_ID", 0, 2147483647));
  }
  const int port = kSlurmPort + static_cast<int>((int64_t{job} * 7 + step) % kSlurmPorts);
  BEARING_ASSIGN_OR_RETURN(Bootstrap found, ReadStore(variable, kNames, port));
  if (found.way == Bootstrap::Way::kAlone) return found;
  const char* list = IsSet(variable, "SLURM_STEP_NODELIST") ? "SLURM_STEP_NODELIST" : "SLURM_JOB_NODELIST";
  if (!IsSet(variable, list)) return absl::InvalidArgumentError("SLURM_STEP_NODELIST: is not set, but srun sets it");
  const absl::StatusOr<std::string> host = FirstSlurmHost(variable(list));
  if (!host.ok()) return absl::InvalidArgumentError(absl::StrCat(list, ": ", host.status().message()));
  found.store.host = *host;
  return found;
}

}  // namespace

absl::StatusOr<std::string> FirstSlurmHost(const std::string& list) {
  const absl::Status wrong = absl::InvalidArgumentError(absl::StrCat("must be a list of hosts: \"", list, "\""));
  std::string host;
  size_t i = 0;
  while (i < list.size() && list[i] != ',') {
    if (list[i] != '[') {
      host.push_back(list[i++]);
      continue;
    }
    // Of "[07-09,12]" the first is 07: digits, with their leading zeros.
    const size_t end = list.find(']', i);
    const size_t first = list.find_first_not_of("0123456789", i + 1);
    if (end == std::string::npos || first == i + 1 || first > end) return wrong;
    host += list.substr(i + 1, first - i - 1);
    i = end + 1;
  }
  if (host.empty() || host.find_first_of(" ]") != std::string::npos) return wrong;
  return host;
}

absl::StatusOr<Bootstrap> ReadBootstrap(const Variables& variable) {
  Bootstrap mpi;
  mpi.way = Bootstrap::Way::kMpi;
  if (IsSet(variable, "OMPI_COMM_WORLD_SIZE")) {
    mpi.launcher = "mpirun";
    if (IsSet(variable, "OMPI_COMM_WORLD_LOCAL_RANK")) {
      BEARING_ASSIGN_OR_RETURN(mpi.local_rank, Number(variable, mpi.launcher, "OMPI_COMM_WORLD_LOCAL_RANK", 0, kMostRanks));
    }
    return mpi;
  }
  if (IsSet(variable, "PMIX_RANK")) {
    mpi.launcher = "PMIx";
    if (IsSet(variable, "SLURM_LOCALID")) {
      BEARING_ASSIGN_OR_RETURN(mpi.local_rank, Number(variable, mpi.launcher, "SLURM_LOCALID", 0, kMostRanks));
    }
    return mpi;
  }
  if (IsSet(variable, "RANK") && IsSet(variable, "WORLD_SIZE")) return ReadTorchrun(variable);
  // Set by srun alone, not in the batch script around it.
  if (IsSet(variable, "SLURM_PROCID") && IsSet(variable, "SLURM_STEP_NUM_TASKS")) return ReadSlurm(variable);
  if (IsSet(variable, "LWS_WORKER_INDEX")) {
    return ReadStore(variable, {"LeaderWorkerSet", "LWS_WORKER_INDEX", "LWS_GROUP_SIZE", "LOCAL_RANK", "LWS_LEADER_ADDRESS"},
                     kDefaultPort);
  }
  if (IsSet(variable, "JOB_COMPLETION_INDEX") && IsSet(variable, "WORLD_SIZE")) {
    return ReadStore(variable, {"the indexed Job", "JOB_COMPLETION_INDEX", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"},
                     kDefaultPort);
  }
  // Ranks that nobody counts for us would each be a group of one and take jobs side by side.
  if (IsSet(variable, "PMI_RANK")) {
    return absl::InvalidArgumentError(
        "PMI_RANK: was set by a launcher that Open MPI does not know (mpiexec of another MPI?): use mpirun of Open MPI, "
        "srun --mpi=pmix, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT");
  }
  return Bootstrap{};
}

}  // namespace bearing::comm
