// The layout of all ranks: replicas of the model, each spread over a group of tensor-parallel ranks.
//
//     world rank        0 1 2 3 4 5      with tensor_parallel = 2
//     replica           0 0 1 1 2 2      ranks of one replica are neighbours, so mpirun puts them on one host
//     tensor-parallel   0 1 0 1 0 1      rank inside the replica
#ifndef BEARING_WORKER_COMM_GRID_H_
#define BEARING_WORKER_COMM_GRID_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace bearing::comm {

struct Grid {
  Communicator* world = nullptr;                  // All ranks. Not owned; outlives the grid.
  std::unique_ptr<Communicator> tensor_parallel;  // The ranks that together hold this rank's copy of the model.
  std::unique_ptr<Communicator> replicas;         // The ranks with the same part of the model, one of each replica, in order.

  int replica() const { return replicas->rank(); }
  int replica_count() const { return replicas->size(); }
};

// Collective over `world`, whose size must be a multiple of `tensor_parallel` (InvalidArgument on every rank otherwise). A
// collective of one of the three involves the ranks of that one alone; all are used by the same thread. A rank that is ahead in
// one group waits there until the others come, so ranks must not wait for each other in two groups at once.
absl::StatusOr<Grid> MakeGrid(Communicator& world, int tensor_parallel);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_GRID_H_
