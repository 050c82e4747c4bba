// Commands whose work is the worker's: this process becomes the worker, or mpirun with several of it.
#ifndef BEARING_CLI_WORKER_PROGRAM_H_
#define BEARING_CLI_WORKER_PROGRAM_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace bearing::cli {

// `arguments` go to bearing-worker, which has `threads` threads a rank. Returns only when it could not be started, saying why.
absl::Status BecomeWorker(std::vector<std::string> arguments, int ranks, int threads);

}  // namespace bearing::cli

#endif  // BEARING_CLI_WORKER_PROGRAM_H_
