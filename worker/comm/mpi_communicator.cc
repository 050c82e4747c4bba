#include "worker/comm/mpi_communicator.h"

#include <ATen/ATen.h>
#include <c10/util/BFloat16.h>
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::comm {
namespace {

// MPI counts are ints: larger tensors go in pieces of this many elements.
constexpr int64_t kMaxCount = int64_t{1} << 30;

void SumBFloat16(void* in, void* inout, int* count, MPI_Datatype*) {
  const auto* a = static_cast<const c10::BFloat16*>(in);
  auto* b = static_cast<c10::BFloat16*>(inout);
  for (int i = 0; i < *count; ++i) b[i] = static_cast<float>(a[i]) + static_cast<float>(b[i]);
}

void MaxBFloat16(void* in, void* inout, int* count, MPI_Datatype*) {
  const auto* a = static_cast<const c10::BFloat16*>(in);
  auto* b = static_cast<c10::BFloat16*>(inout);
  for (int i = 0; i < *count; ++i) b[i] = std::max(static_cast<float>(a[i]), static_cast<float>(b[i]));
}

absl::Status MpiStatus(int code, const char* operation) {
  if (code == MPI_SUCCESS) return absl::OkStatus();
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return absl::UnavailableError(absl::StrCat(operation, ": ", std::string(text, length)));
}

// Ends the process group when an operation overstays its limit. One thread, asleep except at a limit.
class Watchdog {
 public:
  Watchdog(int rank, absl::Duration timeout) : rank_(rank), timeout_(timeout) {
    if (timeout_ > absl::ZeroDuration()) thread_ = std::thread([this] { Run(); });
  }
  ~Watchdog() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  void Begin(const char* operation, int64_t bytes) {
    std::lock_guard lock(mutex_);
    operation_ = operation;
    bytes_ = bytes;
    deadline_ = absl::Now() + timeout_;
  }
  void End() {
    std::lock_guard lock(mutex_);
    operation_ = nullptr;
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      changed_.wait_for(lock, std::chrono::milliseconds(500));
      if (operation_ != nullptr && absl::Now() > deadline_) {
        std::fprintf(stderr, "bearing-worker: rank=%d operation=%s bytes=%lld did not finish within %s; ending the group\n",
                     rank_, operation_, static_cast<long long>(bytes_), absl::FormatDuration(timeout_).c_str());
        std::fflush(stderr);
        MPI_Abort(MPI_COMM_WORLD, 75);
        std::_Exit(75);
      }
    }
  }

  const int rank_;
  const absl::Duration timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  const char* operation_ = nullptr;
  int64_t bytes_ = 0;
  absl::Time deadline_;
  std::thread thread_;
};

class Watched {
 public:
  Watched(Watchdog& dog, const char* operation, int64_t bytes) : dog_(dog) { dog_.Begin(operation, bytes); }
  ~Watched() { dog_.End(); }

 private:
  Watchdog& dog_;
};

class MpiCommunicatorImpl final : public MpiCommunicator {
 public:
  MpiCommunicatorImpl(const MpiOptions& options, int rank, int size) : rank_(rank), size_(size), dog_(rank, options.timeout) {
    MPI_Comm_dup(MPI_COMM_WORLD, &comm_);
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Type_contiguous(sizeof(c10::BFloat16), MPI_BYTE, &bfloat16_);
    MPI_Type_commit(&bfloat16_);
    MPI_Op_create(&SumBFloat16, /*commute=*/1, &sum_bfloat16_);
    MPI_Op_create(&MaxBFloat16, /*commute=*/1, &max_bfloat16_);
  }

  ~MpiCommunicatorImpl() override {
    MPI_Op_free(&max_bfloat16_);
    MPI_Op_free(&sum_bfloat16_);
    MPI_Type_free(&bfloat16_);
    MPI_Comm_free(&comm_);
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status AllReduce(at::Tensor& tensor, ReduceOp op) override {
    if (size_ == 1) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(const Type type, TypeOf(tensor, op));
    Watched watched(dog_, "AllReduce", tensor.nbytes());
    char* data = static_cast<char*>(tensor.data_ptr());
    for (int64_t done = 0; done < tensor.numel(); done += kMaxCount) {
      const int count = static_cast<int>(std::min(kMaxCount, tensor.numel() - done));
      BEARING_RETURN_IF_ERROR(MpiStatus(
          MPI_Allreduce(MPI_IN_PLACE, data + done * tensor.element_size(), count, type.datatype, type.op, comm_), "AllReduce"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<at::Tensor> AllGather(const at::Tensor& tensor) override {
    if (size_ == 1) return tensor;
    BEARING_ASSIGN_OR_RETURN(const Type type, TypeOf(tensor, ReduceOp::kSum));
    Watched watched(dog_, "AllGather", tensor.nbytes());
    int64_t mine = tensor.numel();
    std::vector<int64_t> counts64(size_);
    BEARING_RETURN_IF_ERROR(
        MpiStatus(MPI_Allgather(&mine, 1, MPI_INT64_T, counts64.data(), 1, MPI_INT64_T, comm_), "AllGather"));
    const int64_t total = std::accumulate(counts64.begin(), counts64.end(), int64_t{0});
    if (total > std::numeric_limits<int>::max()) return absl::InternalError(absl::StrCat("AllGather: too large: ", total));
    std::vector<int> counts(counts64.begin(), counts64.end());
    std::vector<int> offsets(size_, 0);
    std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
    std::vector<int64_t> shape = tensor.sizes().vec();
    const int64_t row = std::accumulate(shape.begin() + 1, shape.end(), int64_t{1}, std::multiplies<>());
    shape[0] = row == 0 ? 0 : total / row;
    at::Tensor result = at::empty(shape, tensor.options());
    BEARING_RETURN_IF_ERROR(MpiStatus(MPI_Allgatherv(tensor.data_ptr(), counts[rank_], type.datatype, result.data_ptr(),
                                                     counts.data(), offsets.data(), type.datatype, comm_),
                                      "AllGather"));
    return result;
  }

  absl::Status Broadcast(at::Tensor& tensor, int root) override {
    return BroadcastRaw(static_cast<char*>(tensor.data_ptr()), static_cast<int64_t>(tensor.nbytes()), root);
  }

  absl::Status BroadcastBytes(std::string& bytes, int root) override {
    if (size_ == 1) return absl::OkStatus();
    int64_t length = static_cast<int64_t>(bytes.size());
    BEARING_RETURN_IF_ERROR(BroadcastRaw(reinterpret_cast<char*>(&length), sizeof(length), root));
    bytes.resize(length);
    return BroadcastRaw(bytes.data(), length, root);
  }

  absl::Status IdleWait(std::string& bytes, int root) override {
    if (size_ == 1) return absl::OkStatus();
    MPI_Request request = MPI_REQUEST_NULL;
    BEARING_RETURN_IF_ERROR(MpiStatus(MPI_Ibarrier(comm_, &request), "IdleWait"));
    for (int arrived = 0;;) {
      BEARING_RETURN_IF_ERROR(MpiStatus(MPI_Test(&request, &arrived, MPI_STATUS_IGNORE), "IdleWait"));
      if (arrived) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return BroadcastBytes(bytes, root);
  }

  absl::Status Barrier() override {
    if (size_ == 1) return absl::OkStatus();
    Watched watched(dog_, "Barrier", 0);
    return MpiStatus(MPI_Barrier(comm_), "Barrier");
  }

  void Abort(const std::string& why) override {
    std::fprintf(stderr, "bearing-worker: rank=%d: %s; ending the group\n", rank_, why.c_str());
    std::fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, 70);
    std::_Exit(70);
  }

 private:
  struct Type {
    MPI_Datatype datatype;
    MPI_Op op;
  };

  absl::StatusOr<Type> TypeOf(const at::Tensor& tensor, ReduceOp op) const {
    if (!tensor.is_contiguous()) return absl::InternalError("a tensor given to a collective must be contiguous");
    const MPI_Op plain = op == ReduceOp::kSum ? MPI_SUM : MPI_MAX;
    switch (tensor.scalar_type()) {
      case at::kFloat:
        return Type{MPI_FLOAT, plain};
      case at::kDouble:
        return Type{MPI_DOUBLE, plain};
      case at::kLong:
        return Type{MPI_INT64_T, plain};
      case at::kBFloat16:
        return Type{bfloat16_, op == ReduceOp::kSum ? sum_bfloat16_ : max_bfloat16_};
      default:
        return absl::InternalError(absl::StrCat("no MPI type for ", c10::toString(tensor.scalar_type())));
    }
  }

  absl::Status BroadcastRaw(char* data, int64_t bytes, int root) {
    if (size_ == 1) return absl::OkStatus();
    Watched watched(dog_, "Broadcast", bytes);
    for (int64_t done = 0; done < bytes; done += kMaxCount) {
      const int count = static_cast<int>(std::min(kMaxCount, bytes - done));
      BEARING_RETURN_IF_ERROR(MpiStatus(MPI_Bcast(data + done, count, MPI_BYTE, root, comm_), "Broadcast"));
    }
    return absl::OkStatus();
  }

  const int rank_;
  const int size_;
  Watchdog dog_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  MPI_Datatype bfloat16_ = MPI_DATATYPE_NULL;
  MPI_Op sum_bfloat16_ = MPI_OP_NULL;
  MPI_Op max_bfloat16_ = MPI_OP_NULL;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MpiCommunicator>> MpiCommunicator::Create(const MpiOptions& options) {
  int provided = 0;
  BEARING_RETURN_IF_ERROR(MpiStatus(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread"));
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return std::make_unique<MpiCommunicatorImpl>(options, rank, size);
}

}  // namespace bearing::comm
