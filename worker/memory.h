// Memory of this machine, as a worker may use it.
#ifndef BEARING_WORKER_MEMORY_H_
#define BEARING_WORKER_MEMORY_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace bearing::worker {

// What a new process could still allocate: MemAvailable, limited by the cgroup where there is one.
int64_t AvailableMemoryBytes();

// A count as a one-element tensor for a kMax reduction that finds the minimum.
at::Tensor NegatedCount(int64_t count);
int64_t CountOf(const at::Tensor& tensor);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_MEMORY_H_
