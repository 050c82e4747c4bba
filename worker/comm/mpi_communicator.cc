#include "worker/comm/mpi_communicator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/comm/mpi_process.h"

namespace bearing::comm {
namespace {

// MPI counts are ints: larger tensors go in pieces of this many elements.
constexpr int64_t kMaxCount = int64_t{1} << 30;

class MpiCommunicatorImpl final : public MpiCommunicator {
 public:
  // Owns `comm`. `group` is empty for the group of all ranks.
  MpiCommunicatorImpl(std::shared_ptr<MpiProcess> process, MPI_Comm comm, std::string group)
      : process_(std::move(process)), group_(std::move(group)), comm_(comm) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }

  ~MpiCommunicatorImpl() override {
    std::lock_guard call(process_->calls());
    MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status AllReduce(at::Tensor& tensor, ReduceOp op) override {
    if (size_ == 1) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(const MpiProcess::Reduction how, ReductionOf(tensor, op));
    const Operation operation = Named("AllReduce", tensor.nbytes());
    Watched watched(process_->watchdog(), operation);
    std::lock_guard call(process_->calls());
    char* data = static_cast<char*>(tensor.data_ptr());
    for (int64_t done = 0; done < tensor.numel(); done += kMaxCount) {
      const int count = static_cast<int>(std::min(kMaxCount, tensor.numel() - done));
      BEARING_RETURN_IF_ERROR(process_->Check(
          MPI_Allreduce(MPI_IN_PLACE, data + done * tensor.element_size(), count, how.datatype, how.op, comm_), operation));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<at::Tensor> AllGather(const at::Tensor& tensor) override {
    if (size_ == 1) return tensor;
    BEARING_ASSIGN_OR_RETURN(const MpiProcess::Reduction how, ReductionOf(tensor, ReduceOp::kSum));
    const Operation operation = Named("AllGather", tensor.nbytes());
    Watched watched(process_->watchdog(), operation);
    std::lock_guard call(process_->calls());
    int64_t mine = tensor.numel();
    std::vector<int64_t> counts64(size_);
    BEARING_RETURN_IF_ERROR(
        process_->Check(MPI_Allgather(&mine, 1, MPI_INT64_T, counts64.data(), 1, MPI_INT64_T, comm_), operation));
    const int64_t total = std::accumulate(counts64.begin(), counts64.end(), int64_t{0});
    if (total > std::numeric_limits<int>::max()) return absl::InternalError(absl::StrCat("AllGather: too large: ", total));
    std::vector<int> counts(counts64.begin(), counts64.end());
    std::vector<int> offsets(size_, 0);
    std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
    std::vector<int64_t> shape = tensor.sizes().vec();
    const int64_t row = std::accumulate(shape.begin() + 1, shape.end(), int64_t{1}, std::multiplies<>());
    shape[0] = row == 0 ? 0 : total / row;
    at::Tensor result = at::empty(shape, tensor.options());
    BEARING_RETURN_IF_ERROR(process_->Check(MPI_Allgatherv(tensor.data_ptr(), counts[rank_], how.datatype, result.data_ptr(),
                                                           counts.data(), offsets.data(), how.datatype, comm_),
                                            operation));
    return result;
  }

  absl::Status Broadcast(at::Tensor& tensor, int root) override {
    if (!tensor.is_contiguous()) return absl::InternalError("Broadcast: a tensor given to a collective must be contiguous");
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
    const Operation operation = Named("IdleWait", 0);
    MPI_Request request = MPI_REQUEST_NULL;
    {
      std::lock_guard call(process_->calls());
      BEARING_RETURN_IF_ERROR(process_->Check(MPI_Ibarrier(comm_, &request), operation));
    }
    for (int arrived = 0;;) {
      {
        std::lock_guard call(process_->calls());
        BEARING_RETURN_IF_ERROR(process_->Check(MPI_Test(&request, &arrived, MPI_STATUS_IGNORE), operation));
      }
      if (arrived) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return BroadcastBytes(bytes, root);
  }

  absl::Status Barrier() override {
    if (size_ == 1) return absl::OkStatus();
    const Operation operation = Named("Barrier", 0);
    Watched watched(process_->watchdog(), operation);
    std::lock_guard call(process_->calls());
    return process_->Check(MPI_Barrier(comm_), operation);
  }

  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string& name) override {
    const Operation operation = Named("Split", 0);
    MPI_Comm part = MPI_COMM_NULL;
    {
      Watched watched(process_->watchdog(), operation);
      std::lock_guard call(process_->calls());
      BEARING_RETURN_IF_ERROR(process_->Check(MPI_Comm_split(comm_, color, key, &part), operation));
    }
    return std::make_unique<MpiCommunicatorImpl>(process_, part, name);
  }

  absl::StatusOr<std::unique_ptr<SharedCounter>> MakeCounter() override { return MakeMpiCounter(process_, comm_); }

  void SetStage(const std::string& stage) override { process_->watchdog().SetStage(stage); }

  void Abort(const std::string& why, int exit_code) override {
    process_->End(absl::StrCat(process_->watchdog().Place(), ": ", why), exit_code);
  }

 private:
  Operation Named(const char* name, int64_t bytes) const { return {.name = name, .group = &group_, .bytes = bytes}; }

  absl::StatusOr<MpiProcess::Reduction> ReductionOf(const at::Tensor& tensor, ReduceOp op) const {
    if (!tensor.is_contiguous()) return absl::InternalError("a tensor given to a collective must be contiguous");
    return process_->ReductionOf(tensor.scalar_type(), op);
  }

  absl::Status BroadcastRaw(char* data, int64_t bytes, int root) {
    if (size_ == 1) return absl::OkStatus();
    const Operation operation = Named("Broadcast", bytes);
    Watched watched(process_->watchdog(), operation);
    std::lock_guard call(process_->calls());
    for (int64_t done = 0; done < bytes; done += kMaxCount) {
      const int count = static_cast<int>(std::min(kMaxCount, bytes - done));
      BEARING_RETURN_IF_ERROR(process_->Check(MPI_Bcast(data + done, count, MPI_BYTE, root, comm_), operation));
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<MpiProcess> process_;
  const std::string group_;
  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MpiCommunicator>> MpiCommunicator::Create(const MpiOptions& options) {
  BEARING_ASSIGN_OR_RETURN(std::shared_ptr<MpiProcess> process, MpiProcess::Start(options.timeout));
  MPI_Comm comm = MPI_COMM_NULL;
  BEARING_RETURN_IF_ERROR(process->Check(MPI_Comm_dup(MPI_COMM_WORLD, &comm), {.name = "MPI_Comm_dup"}));
  return std::make_unique<MpiCommunicatorImpl>(std::move(process), comm, "");
}

}  // namespace bearing::comm
