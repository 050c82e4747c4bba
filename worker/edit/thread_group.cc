#include "worker/edit/thread_group.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace bearing::edit {
namespace {

class Agreement {
 public:
  explicit Agreement(int ranks) : ranks_(ranks), said_(static_cast<size_t>(ranks)) {}

  // Collective.
  absl::Status Agree(int rank, const absl::Status& status) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (left_) return left_status_;
    said_[static_cast<size_t>(rank)] = status;
    if (++here_ == ranks_) {
      agreed_ = FirstFailure(said_);
      here_ = 0;
      ++round_;
      changed_.notify_all();
      return agreed_;
    }
    // The next round cannot end, and change what was agreed, before this rank has said something in it.
    const int64_t round = round_;
    changed_.wait(lock, [&] { return round_ != round || left_; });
    return round_ != round ? agreed_ : left_status_;
  }

  // After its last word.
  void Leave(const absl::Status& status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (left_) return;
    left_ = true;
    left_status_ = status.ok() ? absl::InternalError("a rank left the others while they had work to do") : status;
    changed_.notify_all();
  }

  static absl::Status FirstFailure(const std::vector<absl::Status>& statuses) {
    for (const absl::Status& status : statuses) {
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  const int ranks_;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::vector<absl::Status> said_;
  int here_ = 0;  // Ranks that wait in this round.
  int64_t round_ = 0;
  absl::Status agreed_;
  bool left_ = false;
  absl::Status left_status_;
};

absl::Status Guarded(const std::function<absl::Status(const RankGroup&)>& work, const RankGroup& group) {
  try {
    return work(group);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace

absl::Status RunThreadGroup(int ranks, const std::function<absl::Status(const RankGroup&)>& work) {
  if (ranks == 1) return Guarded(work, RankGroup());
  Agreement agreement(ranks);
  std::vector<absl::Status> statuses(static_cast<size_t>(ranks));
  const auto run = [&](int rank) {
    const RankGroup group{rank, ranks,
                          [&agreement, rank](const absl::Status& status) { return agreement.Agree(rank, status); }};
    absl::Status& status = statuses[static_cast<size_t>(rank)];
    status = Guarded(work, group);
    agreement.Leave(status);
  };
  std::vector<std::thread> threads;
  try {
    for (int rank = 1; rank < ranks; ++rank) threads.emplace_back(run, rank);
    run(0);
  } catch (const std::system_error& error) {  // The system has no more threads to give.
    statuses[0] = absl::ResourceExhaustedError(std::string("cannot start a thread: ") + error.what());
    agreement.Leave(statuses[0]);
  }
  for (std::thread& thread : threads) thread.join();
  return Agreement::FirstFailure(statuses);
}

}  // namespace bearing::edit
