// Ranks that a launcher started without MPI (torchrun, Slurm, one process): they meet at a key-value store that rank 0 serves.
//
// Every operation goes through rank 0 and costs a message or two a rank: enough to set up NCCL, hand out work and agree on
// errors; far too slow to spread a model over CPU ranks (use MPI).
#ifndef BEARING_WORKER_COMM_STORE_COMMUNICATOR_H_
#define BEARING_WORKER_COMM_STORE_COMMUNICATOR_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace bearing::comm {

struct StoreOptions {
  std::string host;  // Of rank 0, as the other ranks reach it. Not encrypted: for trusted networks.
  int port = 0;      // Of the store on that host. 1 to 65535.
  int rank = 0;
  int size = 1;
  // As MpiOptions::timeout; also how long ranks wait for each other at the start.
  absl::Duration timeout = absl::Minutes(10);
  // The launcher serves the store, and may keep it for the next group: then `prefix` is this group's own.
  bool served_elsewhere = false;
  std::string prefix = {};
};

// Collective over all ranks. Unavailable when not all come in time. A rank that ends the group, or is lost, ends the others'
// processes at their next operation. The destructor waits for the other ranks.
absl::StatusOr<std::unique_ptr<Communicator>> MakeStoreCommunicator(const StoreOptions& options);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_STORE_COMMUNICATOR_H_
