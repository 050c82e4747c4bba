// Memory of this machine, as a worker may use it.
#ifndef BEARING_WORKER_MEMORY_H_
#define BEARING_WORKER_MEMORY_H_

#include <cstdint>

namespace bearing::worker {

// What a new process could still allocate: MemAvailable, limited by the cgroup where there is one.
int64_t AvailableMemoryBytes();

// Gives pages that were freed back to the system: what one stage has used must not count against the next.
void ReturnFreeMemory();

// Bounds what libtorch keeps of its products. It holds on to the code and the buffers of the last 1024 shapes, twice, and each
// batch has a row count of its own: about 1 MiB a batch, until it has a thousand. A batch meets a handful of shapes, once a
// block, so that a few dozen are as fast. Sets variables of the environment that libtorch reads at its first product (those
// that the user has set stay): call it first in main, before there are threads.
void BoundProductCaches();

}  // namespace bearing::worker

#endif  // BEARING_WORKER_MEMORY_H_
