// How a program is started on several ranks of this machine with Open MPI.
#ifndef BEARING_CLI_MPIRUN_H_
#define BEARING_CLI_MPIRUN_H_

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::cli {

// Cores this process may use.
int AvailableCores();

// Threads a rank: `wanted` if positive, else the cores shared out, at least one.
int ThreadsPerRank(int wanted, int cores, int ranks);

// OMP_NUM_THREADS, and OMP_WAIT_POLICY=PASSIVE so that idle threads do not spin on cores that other ranks need.
std::map<std::string, std::string> ThreadEnvironment(int threads);

struct MpirunOptions {
  std::string mpirun;  // Path of the program.
  int ranks = 1;
  bool is_root = false;
};

// The command line that starts `program` on the ranks, with the variables of ThreadEnvironment passed on.
std::vector<std::string> MpirunArguments(const MpirunOptions& options, const std::vector<std::string>& program);

// Removes the session folder (OMPI 4: TMPDIR/ompi.HOST.UID/pid.N, about a MiB) of an mpirun that has ended: one that was killed
// leaves it behind. Nothing where it has been removed.
void RemoveSessionFolder(pid_t mpirun);

// mpirun in PATH. NotFound says what to install.
absl::StatusOr<std::string> FindMpirun();

}  // namespace bearing::cli

#endif  // BEARING_CLI_MPIRUN_H_
