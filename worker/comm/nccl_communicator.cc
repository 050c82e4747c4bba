#include "worker/comm/nccl_communicator.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/comm/device_queue.h"
#include "worker/comm/operation.h"

namespace bearing::comm {
namespace {

// Setting up a group takes seconds. Ranks notice sooner than at the common limit that another one could not.
constexpr absl::Duration kConnectLimit = absl::Minutes(2);

absl::Status CudaStatus(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorString(code)));
}

// The device of this rank and what is going on there. Events are the marks; NCCL's groups report failures.
class DeviceOfRank final : public DeviceMarks {
 public:
  explicit DeviceOfRank(int index) : index_(index) {}

  int index() const { return index_; }
  cudaStream_t stream() const { return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(index_)).stream(); }

  void Add(ncclComm_t group) {
    std::lock_guard lock(mutex_);
    groups_.push_back(group);
  }
  void Remove(ncclComm_t group) {
    std::lock_guard lock(mutex_);
    groups_.erase(std::remove(groups_.begin(), groups_.end(), group), groups_.end());
  }

  Mark Create() override {
    cudaEvent_t event = nullptr;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    return event;
  }
  void Destroy(Mark mark) override { cudaEventDestroy(static_cast<cudaEvent_t>(mark)); }
  void Record(Mark mark) override { cudaEventRecord(static_cast<cudaEvent_t>(mark), stream()); }
  State Query(Mark mark) override {
    SelectOnThisThread();
    const cudaError_t code = cudaEventQuery(static_cast<cudaEvent_t>(mark));
    return code == cudaSuccess ? State::kDone : code == cudaErrorNotReady ? State::kPending : State::kFailed;
  }
  std::string Failure() override {
    std::lock_guard lock(mutex_);
    for (ncclComm_t group : groups_) {
      ncclResult_t state = ncclSuccess;
      if (ncclCommGetAsyncError(group, &state) == ncclSuccess && (state == ncclSuccess || state == ncclInProgress)) continue;
      return absl::StrCat("NCCL: ", ncclGetErrorString(state), ": ", ncclGetLastError(group));
    }
    return "";
  }
  void AbortOperations() override {
    std::lock_guard lock(mutex_);
    for (ncclComm_t group : groups_) ncclCommAbort(group);
    groups_.clear();
  }

 private:
  // A thread that never chose a device would open a context on device 0.
  void SelectOnThisThread() const {
    thread_local int selected = -1;
    if (std::exchange(selected, index_) != index_) cudaSetDevice(index_);
  }

  const int index_;
  std::mutex mutex_;
  std::vector<ncclComm_t> groups_;
};

// What the communicators of a rank share.
struct RankState {
  RankState(Communicator& host, int device, absl::Duration timeout)
      : timeout(timeout),
        device(device),
        queue(this->device, timeout, [&host](const std::string& what) { host.Abort(what, kExitTimedOut); }) {}

  const absl::Duration timeout;
  DeviceOfRank device;
  DeviceQueue queue;  // Last: its thread uses the device.
};

class NcclCommunicator final : public Communicator {
 public:
  // `host` carries what is in host memory. `owned` is `host` where this communicator has to keep it.
  NcclCommunicator(Communicator& host, std::unique_ptr<Communicator> owned, std::shared_ptr<RankState> state, std::string group,
                   bool nccl_alone)
      : owned_(std::move(owned)), host_(host), state_(std::move(state)), group_(std::move(group)), nccl_alone_(nccl_alone) {}

  ~NcclCommunicator() override {
    if (nccl_ == nullptr) return;
    cudaStreamSynchronize(state_->device.stream());
    state_->device.Remove(nccl_);
    ncclCommAbort(nccl_);  // Nothing is under way. Unlike ncclCommDestroy it waits for nobody.
  }

  at::Device device() const override { return {at::kCUDA, static_cast<at::DeviceIndex>(state_->device.index())}; }
  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }

  absl::Status AllReduce(at::Tensor& tensor, ReduceOp op) override {
    if (!tensor.is_cuda()) return host_.AllReduce(tensor, op);
    if (!UsesNccl()) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(const ncclDataType_t type, TypeOf(tensor.scalar_type()));
    BEARING_RETURN_IF_ERROR(Prepare(tensor));
    return Run("AllReduce", tensor.nbytes(), [&] {
      return ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), tensor.numel(), type, op == ReduceOp::kSum ? ncclSum : ncclMax,
                           nccl_, state_->device.stream());
    });
  }

  absl::StatusOr<at::Tensor> AllGather(const at::Tensor& tensor) override {
    if (!tensor.is_cuda()) return host_.AllGather(tensor);
    if (!UsesNccl()) return tensor;
    BEARING_RETURN_IF_ERROR(Prepare(tensor));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor rows, host_.AllGather(at::full({1}, tensor.size(0), at::kLong)));
    std::vector<int64_t> shape = tensor.sizes().vec();
    const int64_t row_bytes =
        std::accumulate(shape.begin() + 1, shape.end(), int64_t{1}, std::multiplies<>()) * tensor.element_size();
    const int64_t* counts = rows.data_ptr<int64_t>();
    shape[0] = std::accumulate(counts, counts + size(), int64_t{0});
    at::Tensor result = at::empty(shape, tensor.options());
    char* out = static_cast<char*>(result.data_ptr());
    const bool even = std::all_of(counts, counts + size(), [&](int64_t count) { return count == counts[0]; });
    BEARING_RETURN_IF_ERROR(Run("AllGather", tensor.nbytes(), [&] {
      const cudaStream_t stream = state_->device.stream();
      if (even) return ncclAllGather(tensor.data_ptr(), out, tensor.nbytes(), ncclUint8, nccl_, stream);
      ncclGroupStart();
      for (int r = 0; r < size(); ++r) {
        const size_t bytes = counts[r] * row_bytes;
        if (bytes > 0) ncclBroadcast(r == rank() ? tensor.data_ptr() : out, out, bytes, ncclUint8, r, nccl_, stream);
        out += bytes;
      }
      return ncclGroupEnd();  // Reports what went wrong since the start.
    }));
    return result;
  }

  absl::Status Broadcast(at::Tensor& tensor, int root) override {
    if (!tensor.is_cuda()) return host_.Broadcast(tensor, root);
    if (!UsesNccl()) return absl::OkStatus();
    BEARING_RETURN_IF_ERROR(Prepare(tensor));
    return Run("Broadcast", tensor.nbytes(), [&] {
      return ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.nbytes(), ncclUint8, root, nccl_,
                           state_->device.stream());
    });
  }

  absl::Status BroadcastBytes(std::string& bytes, int root) override { return host_.BroadcastBytes(bytes, root); }
  absl::Status IdleWait(std::string& bytes, int root) override { return host_.IdleWait(bytes, root); }
  absl::Status Barrier() override { return host_.Barrier(); }

  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string& name) override {
    BEARING_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> part, host_.Split(color, key, name));
    Communicator& host = *part;
    return std::make_unique<NcclCommunicator>(host, std::move(part), state_, name, nccl_alone_);
  }

  absl::StatusOr<std::unique_ptr<SharedCounter>> MakeCounter() override { return host_.MakeCounter(); }
  void SetStage(const std::string& stage) override { host_.SetStage(stage); }
  void Abort(const std::string& why, int exit_code) override { host_.Abort(why, exit_code); }

 private:
  bool UsesNccl() const { return size() > 1 || nccl_alone_; }

  static absl::StatusOr<ncclDataType_t> TypeOf(at::ScalarType type) {
    switch (type) {
      case at::kFloat:
        return ncclFloat32;
      case at::kDouble:
        return ncclFloat64;
      case at::kBFloat16:
        return ncclBfloat16;
      case at::kLong:
        return ncclInt64;
      default:
        return absl::InternalError(absl::StrCat("no NCCL type for ", c10::toString(type)));
    }
  }

  // Checks the tensor and makes the group of NCCL where this is its first operation.
  absl::Status Prepare(const at::Tensor& tensor) {
    if (!tensor.is_contiguous()) return absl::InternalError("a tensor given to a collective must be contiguous");
    if (tensor.get_device() != state_->device.index()) {
      return absl::InternalError(absl::StrCat("a tensor given to a collective is on another device: tensor=",
                                              tensor.get_device(), " rank=", state_->device.index()));
    }
    return nccl_ == nullptr ? Connect() : absl::OkStatus();
  }

  absl::Status Connect() {
    const Operation operation = Named("Connect", 0);
    ncclUniqueId id{};
    std::string bytes;
    if (rank() == 0) {
      const ncclResult_t code = ncclGetUniqueId(&id);
      if (code == ncclSuccess) bytes.assign(id.internal, sizeof(id.internal));
    }
    BEARING_RETURN_IF_ERROR(host_.BroadcastBytes(bytes, 0));
    if (bytes.size() != sizeof(id.internal)) {
      return absl::UnavailableError(absl::StrCat(Describe(operation), ": NCCL on rank 0: ", ncclGetLastError(nullptr)));
    }
    std::copy(bytes.begin(), bytes.end(), id.internal);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t made = nullptr;
    const ncclResult_t begun = ncclCommInitRankConfig(&made, size(), id, rank(), &config);
    const absl::Status status =
        Settle(made, begun, operation,
               state_->timeout > absl::ZeroDuration() ? std::min(kConnectLimit, state_->timeout) : kConnectLimit);
    if (!status.ok() && made != nullptr) ncclCommAbort(made);
    BEARING_RETURN_IF_ERROR(AgreeOnStatus(host_, status));
    nccl_ = made;
    state_->device.Add(nccl_);
    return absl::OkStatus();
  }

  template <typename Call>
  absl::Status Run(const char* name, int64_t bytes, const Call& call) {
    const Operation operation = Named(name, bytes);
    BEARING_RETURN_IF_ERROR(
        Settle(nccl_, call(), operation, state_->timeout > absl::ZeroDuration() ? state_->timeout : absl::InfiniteDuration()));
    state_->queue.Push(Describe(operation));
    return absl::OkStatus();
  }

  // Calls of a non-blocking group return before they are through with the host's part: waits for it, with a limit.
  absl::Status Settle(ncclComm_t group, ncclResult_t code, const Operation& operation, absl::Duration limit) const {
    const auto start = std::chrono::steady_clock::now();
    while (code == ncclInProgress) {
      const ncclResult_t asked = ncclCommGetAsyncError(group, &code);
      if (asked != ncclSuccess) code = asked;
      if (code != ncclInProgress) break;
      if (absl::FromChrono(std::chrono::steady_clock::now() - start) > limit) {
        return absl::DeadlineExceededError(
            absl::StrCat(Describe(operation), " did not finish within ", absl::FormatDuration(limit)));
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    if (code == ncclSuccess) return absl::OkStatus();
    return absl::UnavailableError(
        absl::StrCat(Describe(operation), ": NCCL: ", ncclGetErrorString(code), ": ", ncclGetLastError(group)));
  }

  Operation Named(const char* name, int64_t bytes) const { return {.name = name, .group = &group_, .bytes = bytes}; }
  std::string Describe(const Operation& operation) const {
    return absl::StrCat(comm::Describe(operation), " device=cuda:", state_->device.index());
  }

  const std::unique_ptr<Communicator> owned_;
  Communicator& host_;
  const std::shared_ptr<RankState> state_;
  const std::string group_;
  const bool nccl_alone_;
  ncclComm_t nccl_ = nullptr;
};

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

// The text of every rank, in rank order.
absl::StatusOr<std::vector<std::string>> Exchange(Communicator& comm, const std::string& mine) {
  std::vector<std::string> all(comm.size());
  all[comm.rank()] = mine;
  for (int rank = 0; rank < comm.size(); ++rank) BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(all[rank], rank));
  return all;
}

// Which device this rank takes: `wanted`, or the one with its number among the ranks of its host.
absl::StatusOr<int> ChooseDevice(int wanted, int place_on_host) {
  const int count = c10::cuda::device_count();
  if (count == 0) return absl::FailedPreconditionError(absl::StrCat("no CUDA device: host=", HostName()));
  // A launcher that gives each rank its own device shows it that one alone.
  const int index = wanted >= 0 ? wanted : count == 1 ? 0 : place_on_host;
  if (index < count) return index;
  return absl::FailedPreconditionError(absl::StrCat("no such CUDA device: host=", HostName(), " device=", index,
                                                    " devices=", count, "; start at most one rank for each device of a host"));
}

// The device as the whole group knows it, whatever number a process has for it.
absl::StatusOr<std::string> Identity(int device) {
  cudaDeviceProp properties;
  BEARING_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  return absl::StrCat(HostName(), " ", std::string(properties.uuid.bytes, sizeof(properties.uuid.bytes)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(Communicator& bootstrap, const CudaOptions& options) {
  BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> hosts, Exchange(bootstrap, HostName()));
  const int place = static_cast<int>(std::count(hosts.begin(), hosts.begin() + bootstrap.rank(), hosts[bootstrap.rank()]));
  absl::StatusOr<int> device = -1;
  absl::StatusOr<std::string> identity = std::string();
  try {
    device = ChooseDevice(options.device, place);
    if (device.ok()) {
      c10::cuda::set_device(static_cast<c10::DeviceIndex>(*device));
      identity = Identity(*device);
    }
  } catch (const std::exception& error) {
    device = absl::FailedPreconditionError(absl::StrCat("CUDA: ", error.what()));
  }
  BEARING_RETURN_IF_ERROR(AgreeOnStatus(bootstrap, device.ok() ? identity.status() : device.status()));
  BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> devices, Exchange(bootstrap, *identity));
  for (int a = 0; a < bootstrap.size(); ++a) {
    for (int b = a + 1; b < bootstrap.size(); ++b) {
      if (devices[a] != devices[b]) continue;
      return absl::FailedPreconditionError(absl::StrCat("two ranks have the same CUDA device: host=", hosts[a], " ranks=", a,
                                                        ",", b, "; NCCL needs one device for each rank"));
    }
  }
  auto state = std::make_shared<RankState>(bootstrap, *device, options.timeout);
  return std::make_unique<NcclCommunicator>(bootstrap, nullptr, std::move(state), "", options.nccl_alone);
}

}  // namespace bearing::comm
