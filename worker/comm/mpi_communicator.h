// Ranks as MPI processes, for tensors in host memory.
#ifndef BEARING_WORKER_COMM_MPI_COMMUNICATOR_H_
#define BEARING_WORKER_COMM_MPI_COMMUNICATOR_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace bearing::comm {

struct MpiOptions {
  // An operation that takes longer ends all ranks with a message naming rank, stage, operation and size. Zero = no limit.
  absl::Duration timeout = absl::Minutes(10);
};

// Initializes MPI (THREAD_MULTIPLE) on Create and finalizes it when this and all that was split off it are destroyed: make
// exactly one in a process, on the thread that uses it. Works without mpirun as a group of one.
class MpiCommunicator : public Communicator {
 public:
  static absl::StatusOr<std::unique_ptr<MpiCommunicator>> Create(const MpiOptions& options);
};

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_MPI_COMMUNICATOR_H_
