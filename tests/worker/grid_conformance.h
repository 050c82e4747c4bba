// What a grid of ranks and its work queue must do, whatever carries them; run by each rank.
#ifndef BEARING_TESTS_WORKER_GRID_CONFORMANCE_H_
#define BEARING_TESTS_WORKER_GRID_CONFORMANCE_H_

#include <ATen/ATen.h>

#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "sharding/status_macros.h"
#include "tests/worker/communicator_conformance.h"
#include "worker/comm/grid.h"
#include "worker/comm/work_queue.h"

namespace bearing::testing {

inline absl::StatusOr<int64_t> SumOf(comm::Communicator& comm, int64_t number) {
  at::Tensor tensor = at::full({1}, number, at::kLong);
  BEARING_RETURN_IF_ERROR(comm.AllReduce(tensor, comm::ReduceOp::kSum));
  return tensor.item<int64_t>();
}

// Every part of the grid is a communicator of its own, in the documented order.
inline absl::Status ExerciseGrid(comm::Communicator& world, int tensor_parallel) {
  BEARING_ASSIGN_OR_RETURN(comm::Grid grid, comm::MakeGrid(world, tensor_parallel));
  const int replicas = world.size() / tensor_parallel;
  BEARING_RETURN_IF_ERROR(Check(grid.tensor_parallel->size() == tensor_parallel, "tensor_parallel size"));
  BEARING_RETURN_IF_ERROR(Check(grid.tensor_parallel->rank() == world.rank() % tensor_parallel, "tensor_parallel rank"));
  BEARING_RETURN_IF_ERROR(Check(grid.replica_count() == replicas, "replica_count"));
  BEARING_RETURN_IF_ERROR(Check(grid.replica() == world.rank() / tensor_parallel, "replica"));
  // Neighbours hold a replica; ranks with the same place in theirs form the other group.
  int64_t neighbours = 0;
  for (int r = 0; r < tensor_parallel; ++r) neighbours += 1 << (grid.replica() * tensor_parallel + r);
  BEARING_ASSIGN_OR_RETURN(const int64_t tp_members, SumOf(*grid.tensor_parallel, int64_t{1} << world.rank()));
  BEARING_RETURN_IF_ERROR(Check(tp_members == neighbours, "members of tensor_parallel"));
  int64_t same_place = 0;
  for (int r = 0; r < replicas; ++r) same_place += 1 << (r * tensor_parallel + grid.tensor_parallel->rank());
  BEARING_ASSIGN_OR_RETURN(const int64_t replica_members, SumOf(*grid.replicas, int64_t{1} << world.rank()));
  BEARING_RETURN_IF_ERROR(Check(replica_members == same_place, "members of replicas"));

  BEARING_RETURN_IF_ERROR(ExerciseCommunicator(*grid.tensor_parallel));
  BEARING_RETURN_IF_ERROR(ExerciseCommunicator(*grid.replicas));

  // An error in the last replica concerns that one alone, until the world agrees on it.
  const bool failing = grid.replica() == replicas - 1;
  const bool speaks = failing && grid.tensor_parallel->rank() == tensor_parallel - 1;
  const absl::Status in_replica =
      comm::AgreeOnStatus(*grid.tensor_parallel, speaks ? absl::DataLossError("bad shard") : absl::OkStatus());
  BEARING_RETURN_IF_ERROR(Check(failing ? absl::IsDataLoss(in_replica) : in_replica.ok(), "AgreeOnStatus in a replica"));
  const absl::Status in_world = comm::AgreeOnStatus(world, in_replica);
  return Check(absl::IsDataLoss(in_world) && in_world.message() == "bad shard", "AgreeOnStatus of the world");
}

// Takes items until none is left, works on each for `work`, and counts them. Checks that a replica's ranks get the same.
inline absl::Status TakeAll(comm::Grid& grid, comm::WorkQueue& queue, std::chrono::milliseconds work, at::Tensor& taken) {
  for (;;) {
    BEARING_ASSIGN_OR_RETURN(const std::optional<int64_t> item, queue.Next());
    at::Tensor seen = at::full({1}, item.value_or(-1), at::kLong);
    BEARING_RETURN_IF_ERROR(grid.tensor_parallel->Broadcast(seen, 0));
    BEARING_RETURN_IF_ERROR(Check(seen.item<int64_t>() == item.value_or(-1), "a replica's ranks work on the same item"));
    if (!item) return absl::OkStatus();
    if (*item < 0 || *item >= taken.numel()) return absl::InternalError(absl::StrCat("no such item: ", *item));
    if (grid.tensor_parallel->rank() == 0) taken[*item] += 1;
    std::this_thread::sleep_for(work);
  }
}

inline absl::Status ExerciseWorkQueue(comm::Communicator& world, int tensor_parallel) {
  BEARING_ASSIGN_OR_RETURN(comm::Grid grid, comm::MakeGrid(world, tensor_parallel));
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<comm::WorkQueue> queue, comm::WorkQueue::Make(grid));
  // Uneven work, several times with one queue, once with nothing to do.
  for (const int items : {23, 0, 1, 40}) {
    BEARING_RETURN_IF_ERROR(queue->Begin(items));
    at::Tensor taken = at::zeros({items}, at::kLong);
    BEARING_RETURN_IF_ERROR(TakeAll(grid, *queue, std::chrono::milliseconds(grid.replica() == 0 ? 20 : 1), taken));
    BEARING_RETURN_IF_ERROR(world.AllReduce(taken, comm::ReduceOp::kSum));
    BEARING_RETURN_IF_ERROR(Check(taken.eq(1).all().item<bool>(), "every item is taken exactly once"));
  }
  // After one replica gives up, the others soon get nothing more.
  const int64_t many = 1'000'000;
  BEARING_RETURN_IF_ERROR(queue->Begin(many));
  int64_t mine = 0;
  for (;; ++mine) {
    BEARING_ASSIGN_OR_RETURN(const std::optional<int64_t> item, queue->Next());
    if (!item) break;
    if (world.rank() == world.size() - 1) BEARING_RETURN_IF_ERROR(queue->Cancel());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  BEARING_ASSIGN_OR_RETURN(const int64_t all, SumOf(world, mine));
  BEARING_RETURN_IF_ERROR(Check(all < many, "Cancel ends the work"));
  BEARING_RETURN_IF_ERROR(queue->Begin(3));
  at::Tensor taken = at::zeros({3}, at::kLong);
  BEARING_RETURN_IF_ERROR(TakeAll(grid, *queue, std::chrono::milliseconds(0), taken));
  BEARING_RETURN_IF_ERROR(world.AllReduce(taken, comm::ReduceOp::kSum));
  return Check(taken.eq(1).all().item<bool>(), "a cancelled queue can be used again");
}

// Others draw while world rank 0, which holds the counter, computes and calls nothing.
inline absl::Status ExerciseBusyRank0(comm::Communicator& world) {
  if (world.size() == 1) return absl::OkStatus();
  constexpr std::chrono::milliseconds kBusy{3000};
  BEARING_ASSIGN_OR_RETURN(comm::Grid grid, comm::MakeGrid(world, 1));
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<comm::WorkQueue> queue, comm::WorkQueue::Make(grid));
  BEARING_RETURN_IF_ERROR(queue->Begin(100));
  const auto start = std::chrono::steady_clock::now();
  absl::Status waited = absl::OkStatus();
  if (world.rank() == 0) {
    std::this_thread::sleep_for(kBusy);
  } else {
    at::Tensor taken = at::zeros({100}, at::kLong);
    BEARING_RETURN_IF_ERROR(TakeAll(grid, *queue, std::chrono::milliseconds(0), taken));
    waited = Check(std::chrono::steady_clock::now() - start < kBusy / 2, "draws waited for rank 0");
  }
  return comm::AgreeOnStatus(world, waited);
}

inline absl::Status ExerciseLayouts(comm::Communicator& world) {
  for (int tensor_parallel = 1; tensor_parallel <= world.size(); ++tensor_parallel) {
    if (world.size() % tensor_parallel != 0) {
      BEARING_RETURN_IF_ERROR(Check(absl::IsInvalidArgument(comm::MakeGrid(world, tensor_parallel).status()), "uneven grid"));
      continue;
    }
    BEARING_RETURN_IF_ERROR(ExerciseGrid(world, tensor_parallel));
    BEARING_RETURN_IF_ERROR(ExerciseWorkQueue(world, tensor_parallel));
  }
  BEARING_RETURN_IF_ERROR(Check(absl::IsInvalidArgument(comm::MakeGrid(world, 0).status()), "grid of nothing"));
  return ExerciseBusyRank0(world);
}

}  // namespace bearing::testing

#endif  // BEARING_TESTS_WORKER_GRID_CONFORMANCE_H_
