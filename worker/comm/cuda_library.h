// What libbearing_cuda.so gives to cuda_backend.cc, its only user. Both come from the same build.
#ifndef BEARING_WORKER_COMM_CUDA_LIBRARY_H_
#define BEARING_WORKER_COMM_CUDA_LIBRARY_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"
#include "worker/comm/cuda_backend.h"

namespace bearing::comm {

struct CudaLibrary {
  const char* version;  // Of Bearing. A library of another version is refused.
  absl::StatusOr<std::unique_ptr<Communicator>> (*make_communicator)(Communicator& bootstrap, const CudaOptions& options);
  absl::StatusOr<CudaDevice> (*current_device)();
};

// The one symbol that is looked up: a function `const CudaLibrary* bearing_cuda_library()`.
inline constexpr char kCudaLibrarySymbol[] = "bearing_cuda_library";
using CudaLibraryFunction = const CudaLibrary* (*)();

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_CUDA_LIBRARY_H_
