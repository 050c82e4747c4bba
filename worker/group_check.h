// `check`: does this group work? Ranks meet, add up numbers in host memory and, where there is one, on each rank's device, and
// compare the sum with what it must be. For `bearing doctor`; takes a second or two.
#ifndef BEARING_WORKER_GROUP_CHECK_H_
#define BEARING_WORKER_GROUP_CHECK_H_

#include <string>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace bearing::worker {

// Collective over both: `world` in host memory, `group` where it computes (may be the same). Rank 0 prints a line of JSON:
// {"ranks", "device", "why_cpu", "memory_bytes_per_rank", "exchange_seconds"}: the device as its driver calls it or "cpu", why
// not CUDA, what a rank may still allocate there at the least, and the time of summing 16 MiB over the ranks. Internal when a
// sum is wrong.
absl::Status RunGroupCheck(comm::Communicator& world, comm::Communicator& group, const std::string& device_name,
                           const std::string& why_cpu);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_GROUP_CHECK_H_
