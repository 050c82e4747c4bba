// Ranks with a GPU each: device tensors go through NCCL, everything else through the communicator that they met over. Used only
// by cuda_library.cc; programs use cuda_backend.h.
#ifndef BEARING_WORKER_COMM_NCCL_COMMUNICATOR_H_
#define BEARING_WORKER_COMM_NCCL_COMMUNICATOR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"
#include "worker/comm/cuda_backend.h"

namespace bearing::comm {

// See MakeCudaCommunicator. NCCL itself is set up at the first operation on a device tensor, since each group of it takes some
// hundred MiB of device memory. FailedPrecondition when this rank has no device; ranks agree on it.
absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(Communicator& bootstrap, const CudaOptions& options);

}  // namespace bearing::comm

#endif  // BEARING_WORKER_COMM_NCCL_COMMUNICATOR_H_
