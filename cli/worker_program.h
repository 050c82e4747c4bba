// Commands whose work is another program's: this process becomes the worker, mpirun with several of it, or the editor.
#ifndef BEARING_CLI_WORKER_PROGRAM_H_
#define BEARING_CLI_WORKER_PROGRAM_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace bearing::cli {

// `arguments` go to bearing-worker, which has `threads` threads a rank. Returns only when it could not be started, saying why.
absl::Status BecomeWorker(std::vector<std::string> arguments, int ranks, int threads);

// `arguments` go to bearing-edit, one process with `ranks` groups of threads. Returns as above.
absl::Status BecomeEditor(std::vector<std::string> arguments, int ranks);

}  // namespace bearing::cli

#endif  // BEARING_CLI_WORKER_PROGRAM_H_
