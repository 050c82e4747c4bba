// Ranks of an edit that are threads of one process: no MPI, and no second process to start.
#ifndef BEARING_WORKER_EDIT_THREAD_GROUP_H_
#define BEARING_WORKER_EDIT_THREAD_GROUP_H_

#include <functional>

#include "absl/status/status.h"
#include "worker/edit/rank_group.h"

namespace bearing::edit {

// Runs `work` once for each of `ranks` ranks (1 or more), each on a thread of its own (rank 0 on the caller's), and returns the
// status of the lowest rank that failed. A rank that leaves `work` while others wait for it to agree ends their wait with its
// failure, or with Internal when it had none; so no rank waits for one that is gone. Exceptions count as Internal.
absl::Status RunThreadGroup(int ranks, const std::function<absl::Status(const RankGroup&)>& work);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_THREAD_GROUP_H_
