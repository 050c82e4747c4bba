// Ranks as threads of one process: the same code paths as a real group, for tests and for debugging.
#ifndef BEARING_WORKER_COMM_THREAD_COMMUNICATOR_H_
#define BEARING_WORKER_COMM_THREAD_COMMUNICATOR_H_

#include <functional>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace bearing::comm {

// Runs `body` on `size` threads, each with its own rank's communicator, and joins them. Returns the first error by rank. A rank
// that returns an error (or throws) wakes the others: their pending operation fails with Aborted.
absl::Status RunThreadRanks(int size, const std::function<absl::Status(Communicator&)>& body);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_THREAD_COMMUNICATOR_H_
