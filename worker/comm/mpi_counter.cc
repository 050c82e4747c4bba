// A SharedCounter at rank 0, by one of two ways:
//
// - All ranks on one host: a word of shared memory, through MPI's one-sided operations, without rank 0's help.
// - Several hosts: messages, which a thread of rank 0 answers while the rank computes or waits. Open MPI 4.1 has no one-sided
//   operations over TCP that work. The thread calls MPI beside the rank's own: hence THREAD_MULTIPLE.
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
constexpr std::chrono::milliseconds kCounterLook{2};
constexpr int kRequest = 1;
constexpr int kAnswer = 2;

// Rank 0's value, and the thread that answers requests until it is destroyed.
class Server {
 public:
  explicit Server(MPI_Comm comm) : comm_(comm), thread_([this] { Run(); }) {}
  ~Server() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  int64_t FetchAdd(int64_t amount) { return value_.fetch_add(amount); }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kCounterLook, [this] { return stop_; })) {
      int found = 0;
      MPI_Status status;
      while (MPI_Iprobe(MPI_ANY_SOURCE, kRequest, comm_, &found, &status) == MPI_SUCCESS && found) {
        int64_t amount = 0;
        MPI_Recv(&amount, 1, MPI_INT64_T, status.MPI_SOURCE, kRequest, comm_, MPI_STATUS_IGNORE);
        const int64_t before = FetchAdd(amount);
        MPI_Send(&before, 1, MPI_INT64_T, status.MPI_SOURCE, kAnswer, comm_);
      }
    }
  }

  const MPI_Comm comm_;
  std::atomic<int64_t> value_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

class MessageCounter final : public SharedCounter {
 public:
  // Owns `comm`.
  MessageCounter(std::shared_ptr<MpiProcess> process, MPI_Comm comm) : process_(std::move(process)), comm_(comm) {
    int rank = 0;
    MPI_Comm_rank(comm_, &rank);
    if (rank == 0) server_ = std::make_unique<Server>(comm_);
  }

  ~MessageCounter() override {
    Watched watched(process_->watchdog(), {.name = "SharedCounter::~SharedCounter"});
    std::lock_guard call(process_->calls());
    MPI_Barrier(comm_);  // Nobody asks any more.
    server_.reset();
    MPI_Comm_free(&comm_);
  }

  absl::StatusOr<int64_t> FetchAdd(int64_t amount) override {
    if (server_ != nullptr) return server_->FetchAdd(amount);
    const Operation operation{.name = "FetchAdd", .bytes = sizeof(int64_t)};
    Watched watched(process_->watchdog(), operation);
    std::lock_guard call(process_->calls());
    int64_t before = 0;
    BEARING_RETURN_IF_ERROR(process_->Check(
        MPI_Sendrecv(&amount, 1, MPI_INT64_T, 0, kRequest, &before, 1, MPI_INT64_T, 0, kAnswer, comm_, MPI_STATUS_IGNORE),
        operation));
    return before;
  }

 private:
  const std::shared_ptr<MpiProcess> process_;
  MPI_Comm comm_;
  std::unique_ptr<Server> server_;  // Of rank 0.
};

class MemoryCounter final : public SharedCounter {
 public:
  MemoryCounter(std::shared_ptr<MpiProcess> process, MPI_Comm comm) : process_(std::move(process)), comm_(comm) {}

  ~MemoryCounter() override {
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
};

}  // namespace

absl::StatusOr<std::unique_ptr<SharedCounter>> MakeMpiCounter(std::shared_ptr<MpiProcess> process, MPI_Comm parent) {
  MPI_Comm comm = MPI_COMM_NULL;
  int here = 0;
  int all = 0;
  {
    std::lock_guard call(process->calls());
    BEARING_RETURN_IF_ERROR(process->Check(MPI_Comm_dup(parent, &comm), {.name = "MakeCounter"}));
    MPI_Comm host = MPI_COMM_NULL;
    BEARING_RETURN_IF_ERROR(
        process->Check(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host), {.name = "MakeCounter"}));
    MPI_Comm_size(host, &here);
    MPI_Comm_size(comm, &all);
    MPI_Comm_free(&host);
  }
  if (here < all) return std::make_unique<MessageCounter>(std::move(process), comm);
  auto counter = std::make_unique<MemoryCounter>(std::move(process), comm);
  BEARING_RETURN_IF_ERROR(counter->Open());
  return counter;
}

}  // namespace bearing::comm
