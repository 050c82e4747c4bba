#include "worker/comm/work_queue.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::comm {
namespace {

constexpr int64_t kFailed = -1;

// One number of `root` for every rank of `comm`.
absl::StatusOr<int64_t> Tell(Communicator& comm, int64_t number, int root) {
  at::Tensor told = at::full({1}, number, at::kLong);
  BEARING_RETURN_IF_ERROR(comm.Broadcast(told, root));
  return told.data_ptr<int64_t>()[0];
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkQueue>> WorkQueue::Make(Grid& grid) {
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<SharedCounter> counter, grid.world->MakeCounter());
  return std::unique_ptr<WorkQueue>(new WorkQueue(grid, std::move(counter)));
}

absl::Status WorkQueue::Begin(int64_t items) {
  if (items < 0) return absl::InternalError(absl::StrCat("WorkQueue: items=", items));
  // Each replica draws once too often to learn that nothing is left, so the counter moves on by an unknown amount. It is never
  // set back; after the last draw of all, its value becomes the new item 0.
  BEARING_RETURN_IF_ERROR(grid_.world->Barrier());
  absl::StatusOr<int64_t> value = grid_.world->rank() == 0 ? counter_->FetchAdd(0) : absl::StatusOr<int64_t>(kFailed);
  BEARING_ASSIGN_OR_RETURN(first_, Tell(*grid_.world, value.ok() ? *value : kFailed, 0));
  items_ = items;
  if (first_ != kFailed) return absl::OkStatus();
  return grid_.world->rank() == 0 ? value.status() : absl::UnavailableError("world rank 0 could not read the work counter");
}

absl::StatusOr<std::optional<int64_t>> WorkQueue::Next() {
  Communicator& group = *grid_.tensor_parallel;
  absl::StatusOr<int64_t> drawn = group.rank() == 0 ? counter_->FetchAdd(1) : absl::StatusOr<int64_t>(kFailed);
  BEARING_ASSIGN_OR_RETURN(const int64_t value, Tell(group, drawn.ok() ? *drawn : kFailed, 0));
  if (value == kFailed) {
    return group.rank() == 0 ? drawn.status() : absl::UnavailableError("the replica's first rank could not draw work");
  }
  const int64_t item = value - first_;
  return item < items_ ? std::optional<int64_t>(item) : std::nullopt;
}

absl::Status WorkQueue::Cancel() { return counter_->FetchAdd(items_).status(); }

}  // namespace bearing::comm
