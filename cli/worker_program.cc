#include "cli/worker_program.h"

#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "cli/mpirun.h"
#include "cli/process.h"
#include "sharding/status_macros.h"

namespace bearing::cli {

absl::Status BecomeWorker(std::vector<std::string> arguments, int ranks, int threads) {
  BEARING_ASSIGN_OR_RETURN(const std::string worker, FindSibling("bearing-worker", "BEARING_WORKER"));
  arguments.insert(arguments.begin(), worker);
  if (ranks > 1) {
    BEARING_ASSIGN_OR_RETURN(const std::string mpirun, FindMpirun());
    arguments = MpirunArguments({.mpirun = mpirun, .ranks = ranks, .is_root = geteuid() == 0}, arguments);
  }
  for (const auto& [name, value] : ThreadEnvironment(threads)) setenv(name.c_str(), value.c_str(), /*overwrite=*/1);
  return BecomeProgram(arguments);
}

absl::Status BecomeEditor(std::vector<std::string> arguments, int ranks) {
  BEARING_ASSIGN_OR_RETURN(const std::string editor, FindSibling("bearing-edit", "BEARING_EDIT"));
  arguments.insert(arguments.begin(), {editor, absl::StrCat("--ranks=", ranks)});
  return BecomeProgram(arguments);
}

}  // namespace bearing::cli
