#include "worker/comm/thread_communicator.h"

#include <ATen/ATen.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::comm {
namespace {

// What the ranks share. Every operation is: publish, meet, read the others, meet.
struct Meeting {
  explicit Meeting(int size) : tensors(size), texts(size) {}

  absl::Status Meet() {
    std::unique_lock lock(mutex);
    if (aborted) return absl::AbortedError("another rank of the group failed");
    const int64_t my_round = round;
    if (++arrived == static_cast<int>(tensors.size())) {
      arrived = 0;
      ++round;
      changed.notify_all();
      return absl::OkStatus();
    }
    changed.wait(lock, [&] { return round != my_round || aborted; });
    return round != my_round ? absl::OkStatus() : absl::AbortedError("another rank of the group failed");
  }

  void Abort() {
    std::lock_guard lock(mutex);
    aborted = true;
    changed.notify_all();
  }

  std::mutex mutex;
  std::condition_variable changed;
  int arrived = 0;
  int64_t round = 0;
  bool aborted = false;
  std::vector<at::Tensor> tensors;
  std::vector<std::string> texts;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(Meeting* meeting, int rank) : meeting_(meeting), rank_(rank) {}

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

  void Abort(const std::string&) override { meeting_->Abort(); }

 private:
  Meeting* meeting_;
  int rank_;
};

}  // namespace

absl::Status RunThreadRanks(int size, const std::function<absl::Status(Communicator&)>& body) {
  Meeting meeting(size);
  std::vector<absl::Status> results(size);
  std::vector<std::thread> threads;
  threads.reserve(size);
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadCommunicator comm(&meeting, rank);
      try {
        results[rank] = body(comm);
      } catch (const std::exception& e) {
        results[rank] = absl::InternalError(absl::StrCat("rank ", rank, " threw: ", e.what()));
      }
      if (!results[rank].ok()) meeting.Abort();
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
