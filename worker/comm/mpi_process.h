// What all MPI communicators and counters of a process share. Private to worker/comm/mpi_*.
#ifndef BEARING_WORKER_COMM_MPI_PROCESS_H_
#define BEARING_WORKER_COMM_MPI_PROCESS_H_

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"
#include "worker/comm/watchdog.h"

namespace bearing::comm {

// MPI between MPI_Init and MPI_Finalize: made once in a process, by the thread that communicates, and kept alive by everything
// that uses MPI.
class MpiProcess {
 public:
  struct Reduction {
    MPI_Datatype datatype;
    MPI_Op op;
  };

  static absl::StatusOr<std::shared_ptr<MpiProcess>> Start(absl::Duration timeout);
  ~MpiProcess();
  MpiProcess(const MpiProcess&) = delete;
  MpiProcess& operator=(const MpiProcess&) = delete;

  // How tensors of a type are sent and reduced. Internal for types that nobody sends.
  absl::StatusOr<Reduction> ReductionOf(at::ScalarType type, ReduceOp op) const;

  // Ok, or Unavailable with MPI's words and `operation` with rank and stage.
  absl::Status Check(int code, const Operation& operation) const;

  // Says why and ends all processes. Does not return.
  [[noreturn]] void End(const std::string& message, int exit_code) const;

  Watchdog& watchdog() { return watchdog_; }

  // Held for the length of each call of MPI by the thread that communicates. Only the server of a counter calls MPI beside it.
  std::mutex& calls() { return calls_; }

  int rank() const { return rank_; }
  int size() const { return size_; }

 private:
  MpiProcess(int rank, int size, absl::Duration timeout);

  const int rank_;
  const int size_;
  std::mutex calls_;
  MPI_Datatype bfloat16_ = MPI_DATATYPE_NULL;
  MPI_Op sum_bfloat16_ = MPI_OP_NULL;
  MPI_Op max_bfloat16_ = MPI_OP_NULL;
  MPI_Op max_float_ = MPI_OP_NULL;
  MPI_Op max_double_ = MPI_OP_NULL;
  Watchdog watchdog_;  // Last: its thread uses the rest.
};

// A counter at rank 0 of `parent` (comm of `process`). Collective.
absl::StatusOr<std::unique_ptr<SharedCounter>> MakeMpiCounter(std::shared_ptr<MpiProcess> process, MPI_Comm parent);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_MPI_PROCESS_H_
