// How much memory this process has used.
#ifndef BEARING_WORKER_EDIT_PEAK_MEMORY_H_
#define BEARING_WORKER_EDIT_PEAK_MEMORY_H_

#include <cstdint>

namespace bearing::edit {

// Resident memory that it has had at the most; 0 where that is not known.
int64_t PeakMemoryBytes();

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_PEAK_MEMORY_H_
