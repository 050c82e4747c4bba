// A SharedCounter in memory of rank 0 that the others reach with MPI's one-sided operations.
//
// Open MPI serves them without rank 0's help when all ranks are on one host (shared memory). Between hosts rank 0 has to be
// inside MPI for them to go on, and it may be computing for minutes. So a thread of rank 0 looks into MPI every few
// milliseconds, whenever the rank's own thread is not in there.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "sharding/status_macros.h"
#include "worker/comm/mpi_process.h"

namespace bearing::comm {
namespace {

// A draw from another host waits for this long at most; one look costs some microseconds.
constexpr std::chrono::milliseconds kLook{2};

// Gives MPI a chance to serve others until it is destroyed.
class Progress {
 public:
  Progress(MpiProcess& process, MPI_Comm comm) : process_(process), comm_(comm), thread_([this] { Run(); }) {}
  ~Progress() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kLook, [this] { return stop_; })) {
      // Whoever holds the lock is inside MPI and serves the others itself.
      std::unique_lock call(process_.calls(), std::try_to_lock);
      int found = 0;
      if (call.owns_lock()) MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, MPI_STATUS_IGNORE);
    }
  }

  MpiProcess& process_;
  const MPI_Comm comm_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

class MpiCounter final : public SharedCounter {
 public:
  MpiCounter(std::shared_ptr<MpiProcess> process, MPI_Comm comm) : process_(std::move(process)), comm_(comm) {}

  ~MpiCounter() override {
    progress_.reset();
    Watched watched(process_->watchdog(), {.name = "SharedCounter::~SharedCounter"});
    std::lock_guard call(process_->calls());
    if (locked_) MPI_Win_unlock_all(window_);
    if (window_ != MPI_WIN_NULL) MPI_Win_free(&window_);
    MPI_Comm_free(&comm_);
  }

  absl::Status Open() {
    const Operation operation{.name = "MakeCounter", .bytes = sizeof(int64_t)};
    Watched watched(process_->watchdog(), operation);
    int rank = 0;
    {
      std::lock_guard call(process_->calls());
      MPI_Comm_rank(comm_, &rank);
      int64_t* value = nullptr;
      BEARING_RETURN_IF_ERROR(process_->Check(
          MPI_Win_allocate(rank == 0 ? sizeof(int64_t) : 0, sizeof(int64_t), MPI_INFO_NULL, comm_, &value, &window_),
          operation));
      MPI_Win_set_errhandler(window_, MPI_ERRORS_RETURN);
      if (rank == 0) {
        MPI_Win_lock(MPI_LOCK_EXCLUSIVE, 0, 0, window_);
        *value = 0;
        MPI_Win_unlock(0, window_);
      }
      BEARING_RETURN_IF_ERROR(process_->Check(MPI_Barrier(comm_), operation));
      BEARING_RETURN_IF_ERROR(process_->Check(MPI_Win_lock_all(MPI_MODE_NOCHECK, window_), operation));
      locked_ = true;
    }
    int ranks = 0;
    MPI_Comm_size(comm_, &ranks);
    if (rank == 0 && ranks > 1) progress_ = std::make_unique<Progress>(*process_, comm_);
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> FetchAdd(int64_t amount) override {
    const Operation operation{.name = "FetchAdd", .bytes = sizeof(int64_t)};
    Watched watched(process_->watchdog(), operation);
    std::lock_guard call(process_->calls());
    int64_t before = 0;
    BEARING_RETURN_IF_ERROR(
        process_->Check(MPI_Fetch_and_op(&amount, &before, MPI_INT64_T, 0, 0, MPI_SUM, window_), operation));
    BEARING_RETURN_IF_ERROR(process_->Check(MPI_Win_flush(0, window_), operation));
    return before;
  }

 private:
  const std::shared_ptr<MpiProcess> process_;
  MPI_Comm comm_;  // Owned.
  MPI_Win window_ = MPI_WIN_NULL;
  bool locked_ = false;
  std::unique_ptr<Progress> progress_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SharedCounter>> MakeMpiCounter(std::shared_ptr<MpiProcess> process, MPI_Comm parent) {
  MPI_Comm comm = MPI_COMM_NULL;
  {
    std::lock_guard call(process->calls());
    BEARING_RETURN_IF_ERROR(process->Check(MPI_Comm_dup(parent, &comm), {.name = "MakeCounter"}));
  }
  auto counter = std::make_unique<MpiCounter>(std::move(process), comm);
  BEARING_RETURN_IF_ERROR(counter->Open());
  return counter;
}

}  // namespace bearing::comm
