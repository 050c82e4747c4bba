// Memory of this machine, as a worker may use it.
#ifndef BEARING_WORKER_MEMORY_H_
#define BEARING_WORKER_MEMORY_H_

#include <cstdint>

namespace bearing::worker {

// What a new process could still allocate: MemAvailable, limited by the cgroup where there is one.
int64_t AvailableMemoryBytes();

// Gives pages that were freed back to the system: what one stage has used must not count against the next.
void ReturnFreeMemory();

}  // namespace bearing::worker

#endif  // BEARING_WORKER_MEMORY_H_
