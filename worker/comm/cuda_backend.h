// The way to GPUs. The worker links neither CUDA, NCCL nor the CUDA half of libtorch: they are in a library of their own,
// libbearing_cuda.so, which is opened only when a device is asked for. A run on the CPU pays nothing for them, and the same
// program runs on machines without them.
#ifndef BEARING_WORKER_COMM_CUDA_BACKEND_H_
#define BEARING_WORKER_COMM_CUDA_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace bearing::comm {

struct CudaOptions {
  // As MpiOptions::timeout, for operations on a device: from when it is at the head of the device's queue to its end.
  absl::Duration timeout = absl::Minutes(10);
  // Device of this rank, -1 = the rank's number among the ranks on its host.
  int device = -1;
  // Path of libbearing_cuda.so; empty = beside the running program.
  std::string library{};
  // Use NCCL also where a group of one needs no communication (tests).
  bool nccl_alone = false;
};

struct CudaDevice {
  int index = 0;
  std::string name;
  int64_t free_bytes = 0;  // What libtorch's allocator keeps for later counts as free.
  int64_t total_bytes = 0;
};

// Whether the driver finds a device; otherwise `why` says what is missing. Asks the driver alone, loads nothing of CUDA or
// libtorch. Thread-safe. A machine without a driver answers in microseconds.
bool CudaAvailable(std::string* why);

// Opens libbearing_cuda.so, and with it the CUDA half of libtorch, whose kernels register themselves. FailedPrecondition,
// naming the library that is missing, where that is not possible, or when ATen has been asked for a device before: it remembers
// that it found none. So call this first on a thread of start-up; calling it again does nothing. Needs no device.
absl::Status LoadCuda(const std::string& library = "");

// LoadCuda, and a communicator over the ranks of `bootstrap` that takes tensors of this rank's device as well as tensors in
// host memory. The latter, bytes, counters and waits go through `bootstrap`, which outlives it. Collective over `bootstrap`.
// Sets the calling thread's current device. Operations on a device tensor are put on the current stream and return before they
// are done, so their errors and their time limit end the group. Not for use while a CUDA graph is captured.
absl::StatusOr<std::unique_ptr<Communicator>> MakeCudaCommunicator(Communicator& bootstrap, const CudaOptions& options);

// The device of the calling thread. After LoadCuda.
absl::StatusOr<CudaDevice> CurrentCudaDevice();

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_CUDA_BACKEND_H_
