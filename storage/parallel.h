// Runs independent pieces of work that mostly wait.
#ifndef BEARING_STORAGE_PARALLEL_H_
#define BEARING_STORAGE_PARALLEL_H_

#include <cstddef>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace bearing::storage {

// Calls work(i) for i in [0, count) on at most `threads` threads and returns the first error by index; after an error no
// further piece is begun.
absl::Status ParallelFor(size_t count, int threads, absl::FunctionRef<absl::Status(size_t)> work);

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_PARALLEL_H_
