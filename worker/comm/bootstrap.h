// How the processes of a group find each other: what the launcher that started them says in their environment.
//
//   launcher                      variables                                            ranks meet by
//   mpirun (Open MPI)             OMPI_COMM_WORLD_SIZE                                 MPI
//   srun --mpi=pmix               PMIX_RANK                                            MPI
//   torchrun, or set by hand      RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT           a store of torchrun's agent, or of rank
//   0 srun without PMIx             SLURM_PROCID, SLURM_STEP_NUM_TASKS, ..._NODELIST     a store of rank 0 LeaderWorkerSet
//   LWS_WORKER_INDEX, LWS_GROUP_SIZE, LWS_LEADER_ADDRESS a store of rank 0 indexed Job, JobSet           JOB_COMPLETION_INDEX,
//   WORLD_SIZE, MASTER_ADDR        a store of rank 0 none of these a group of one
//
// The first row that applies counts: ranks inside a Slurm job that mpirun started are mpirun's. A store carries what GPU ranks
// need to find each other (NCCL does the rest); between CPU ranks it works too, slowly (store_communicator.h).
#ifndef BEARING_WORKER_COMM_BOOTSTRAP_H_
#define BEARING_WORKER_COMM_BOOTSTRAP_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "worker/comm/store_communicator.h"

namespace bearing::comm {

struct Bootstrap {
  enum class Way { kAlone, kMpi, kStore };
  Way way = Way::kAlone;
  std::string launcher = "none";  // For messages.
  StoreOptions store;             // kStore: complete but for the time limit.
  int local_rank = -1;            // Among the ranks of this host; -1 where the launcher does not say.
};

// `variable` is getenv, or a test's stand-in, and returns nullptr for what is not set. Pure. InvalidArgument naming the
// variable that is missing or senseless for the launcher that the others point to.
absl::StatusOr<Bootstrap> ReadBootstrap(const std::function<const char*(const char*)>& variable);

// The first host of a list as Slurm writes it: "node[07-09,12],other" is node07. InvalidArgument when it is none.
absl::StatusOr<std::string> FirstSlurmHost(const std::string& list);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_BOOTSTRAP_H_
