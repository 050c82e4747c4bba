#include "worker/comm/thread_communicator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::comm {
namespace {

// What all ranks share, whatever group they are in: who waits is woken by every change, and by an abort.
struct World {
  std::mutex mutex;
  std::condition_variable changed;
  bool aborted = false;

  void Abort() {
    std::lock_guard lock(mutex);
    aborted = true;
    changed.notify_all();
  }
};

// What the ranks of a group share. Every operation is: publish, meet, read the others, meet.
struct Meeting {
  Meeting(std::shared_ptr<World> world, int size)
      : world(std::move(world)), tensors(size), texts(size), colors(size), parts(size), counters(1) {}

  absl::Status Meet() {
    std::unique_lock lock(world->mutex);
    if (world->aborted) return absl::AbortedError("another rank of the group failed");
    const int64_t my_round = round;
    if (++arrived == static_cast<int>(tensors.size())) {
      arrived = 0;
      ++round;
      world->changed.notify_all();
      return absl::OkStatus();
    }
    world->changed.wait(lock, [&] { return round != my_round || world->aborted; });
    return round != my_round ? absl::OkStatus() : absl::AbortedError("another rank of the group failed");
  }

  const std::shared_ptr<World> world;
  int arrived = 0;
  int64_t round = 0;
  // What each rank published.
  std::vector<at::Tensor> tensors;
  std::vector<std::string> texts;
  std::vector<std::pair<int, int>> colors;  // color, key
  std::vector<std::shared_ptr<Meeting>> parts;
  std::vector<std::shared_ptr<std::atomic<int64_t>>> counters;
};

class ThreadCounter final : public SharedCounter {
 public:
  explicit ThreadCounter(std::shared_ptr<std::atomic<int64_t>> value) : value_(std::move(value)) {}
  absl::StatusOr<int64_t> FetchAdd(int64_t amount) override { return value_->fetch_add(amount); }

 private:
  const std::shared_ptr<std::atomic<int64_t>> value_;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Meeting> meeting, int rank) : meeting_(std::move(meeting)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(meeting_->tensors.size()); }

  absl::Status AllReduce(at::Tensor& tensor, ReduceOp op) override {
    meeting_->tensors[rank_] = tensor;
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    const bool widen = tensor.scalar_type() == at::kBFloat16;
    // Every rank reduces in rank order, so all get the same bits.
    at::Tensor result = widen ? meeting_->tensors[0].to(at::kFloat) : meeting_->tensors[0].clone();
    for (int r = 1; r < size(); ++r) {
      const at::Tensor& other = meeting_->tensors[r];
      if (other.sizes() != tensor.sizes()) return absl::InternalError("AllReduce: ranks disagree on the shape");
      result = op == ReduceOp::kSum ? result.add_(other) : at::maximum(result, widen ? other.to(at::kFloat) : other);
    }
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    tensor.copy_(result);
    return absl::OkStatus();
  }

  absl::StatusOr<at::Tensor> AllGather(const at::Tensor& tensor) override {
    meeting_->tensors[rank_] = tensor;
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    at::Tensor result = at::cat(meeting_->tensors, 0);
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    return result;
  }

  absl::Status Broadcast(at::Tensor& tensor, int root) override {
    meeting_->tensors[rank_] = tensor;
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    if (rank_ != root) tensor.copy_(meeting_->tensors[root]);
    return meeting_->Meet();
  }

  absl::Status BroadcastBytes(std::string& bytes, int root) override {
    if (rank_ == root) meeting_->texts[root] = bytes;
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    if (rank_ != root) bytes = meeting_->texts[root];
    return meeting_->Meet();
  }

  absl::Status IdleWait(std::string& bytes, int root) override { return BroadcastBytes(bytes, root); }

  absl::Status Barrier() override { return meeting_->Meet(); }

  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string&) override {
    meeting_->colors[rank_] = {color, key};
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    std::vector<int> members;
    for (int r = 0; r < size(); ++r) {
      if (meeting_->colors[r].first == color) members.push_back(r);
    }
    std::stable_sort(members.begin(), members.end(),
                     [&](int a, int b) { return meeting_->colors[a].second < meeting_->colors[b].second; });
    if (members[0] == rank_) meeting_->parts[rank_] = std::make_shared<Meeting>(meeting_->world, members.size());
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    std::shared_ptr<Meeting> part = meeting_->parts[members[0]];
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    meeting_->parts[rank_].reset();
    const auto place = std::find(members.begin(), members.end(), rank_);
    return std::make_unique<ThreadCommunicator>(std::move(part), static_cast<int>(place - members.begin()));
  }

  absl::StatusOr<std::unique_ptr<SharedCounter>> MakeCounter() override {
    if (rank_ == 0) meeting_->counters[0] = std::make_shared<std::atomic<int64_t>>(0);
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    auto counter = std::make_unique<ThreadCounter>(meeting_->counters[0]);
    BEARING_RETURN_IF_ERROR(meeting_->Meet());
    return counter;
  }

  void Abort(const std::string&, int) override { meeting_->world->Abort(); }

 private:
  const std::shared_ptr<Meeting> meeting_;
  const int rank_;
};

}  // namespace

absl::Status RunThreadRanks(int size, const std::function<absl::Status(Communicator&)>& body) {
  auto world = std::make_shared<World>();
  auto meeting = std::make_shared<Meeting>(world, size);
  std::vector<absl::Status> results(size);
  std::vector<std::thread> threads;
  threads.reserve(size);
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadCommunicator comm(meeting, rank);
      try {
        results[rank] = body(comm);
      } catch (const std::exception& e) {
        results[rank] = absl::InternalError(absl::StrCat("rank ", rank, " threw: ", e.what()));
      }
      if (!results[rank].ok()) world->Abort();
    });
  }
  for (std::thread& thread : threads) thread.join();
  // A rank that was only woken by another's failure is not the cause.
  for (const absl::Status& status : results) {
    if (!status.ok() && !absl::IsAborted(status)) return status;
  }
  for (const absl::Status& status : results) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace bearing::comm
