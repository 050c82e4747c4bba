// Work that replicas take one item at a time, so that a slow replica takes fewer.
//
//   WorkQueue queue...; Begin(items); while (item = Next()) { work on *item with the tensor-parallel group }
//
// Which replica gets which item depends on timing: results must not. Merge them by item, in item order.
#ifndef BEARING_WORKER_COMM_WORK_QUEUE_H_
#define BEARING_WORKER_COMM_WORK_QUEUE_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/comm/grid.h"

namespace bearing::comm {

// Not thread-safe: used by the thread that uses the grid.
class WorkQueue {
 public:
  // Collective over the world, as is the destructor. `grid` outlives the queue.
  static absl::StatusOr<std::unique_ptr<WorkQueue>> Make(Grid& grid);

  // Offers items 0 to items - 1. Collective over the world, and so the end of the items before: every replica has to be done.
  absl::Status Begin(int64_t items);

  // The next item for this replica, or nothing when all were taken. Collective over the tensor-parallel group alone: its first
  // rank draws and tells the others. Other replicas may be busy for as long as they like.
  absl::StatusOr<std::optional<int64_t>> Next();

  // Nobody is given another item until the next Begin; those taken go on. Local: for a rank whose work has failed, before it
  // agrees on the status with the world.
  absl::Status Cancel();

 private:
  WorkQueue(Grid& grid, std::unique_ptr<SharedCounter> counter) : grid_(grid), counter_(std::move(counter)) {}

  Grid& grid_;
  std::unique_ptr<SharedCounter> counter_;
  int64_t first_ = 0;  // Value of the counter that stands for item 0.
  int64_t items_ = 0;
};

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_WORK_QUEUE_H_
