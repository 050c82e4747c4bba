// The entry of libbearing_cuda.so.
#include "worker/comm/cuda_library.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include <exception>

#include "absl/strings/str_cat.h"
#include "worker/comm/nccl_communicator.h"

namespace bearing::comm {
namespace {

absl::StatusOr<CudaDevice> CurrentDevice() {
  try {
    CudaDevice device;
    device.index = c10::cuda::current_device();
    cudaDeviceProp properties;
    size_t free = 0;
    size_t total = 0;
    cudaError_t code = cudaGetDeviceProperties(&properties, device.index);
    if (code == cudaSuccess) code = cudaMemGetInfo(&free, &total);
    if (code != cudaSuccess) return absl::InternalError(absl::StrCat("CUDA: ", cudaGetErrorString(code)));
    device.name = properties.name;
    // What libtorch's allocator holds but nothing uses is free as well.
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device.index));
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    device.free_bytes = static_cast<int64_t>(free) + stats.reserved_bytes[kAll].current - stats.allocated_bytes[kAll].current;
    device.total_bytes = static_cast<int64_t>(total);
    return device;
  } catch (const std::exception& error) {
    return absl::FailedPreconditionError(absl::StrCat("CUDA: ", error.what()));
  }
}

constexpr CudaLibrary kLibrary{
    .version = BEARING_VERSION, .make_communicator = &MakeNcclCommunicator, .current_device = &CurrentDevice};

}  // namespace
}  // namespace bearing::comm

extern "C" __attribute__((visibility("default"))) const bearing::comm::CudaLibrary* bearing_cuda_library() {
  return &bearing::comm::kLibrary;
}
