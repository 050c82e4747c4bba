// The ranks that share an edit, and how they work side by side without waiting for each other too long.
#ifndef BEARING_WORKER_EDIT_RANK_GROUP_H_
#define BEARING_WORKER_EDIT_RANK_GROUP_H_

#include <atomic>
#include <functional>

#include "absl/status/status.h"

namespace bearing::edit {

// `agree` is collective: the status of the lowest rank that failed, on every rank.
struct RankGroup {
  int rank = 0;
  int ranks = 1;
  std::function<absl::Status(const absl::Status&)> agree = [](const absl::Status& status) { return status; };
};

// Runs `work` on every rank, each at its own pace, and agrees on the outcome. Collective. Long waits in one collective would
// look like a rank that hangs, so those that are done agree every few seconds with those that are not; after a failure on one
// rank `stop` becomes true on all, and all leave with that failure. Where there are several ranks, `work` runs on a thread of
// its own.
absl::Status WorkTogether(const RankGroup& group, const std::function<absl::Status(const std::atomic<bool>& stop)>& work);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_RANK_GROUP_H_
