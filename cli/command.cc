#include "cli/command.h"

#include <iostream>

#include "cli/exit_code.h"

namespace bearing::cli {

int Fail(const absl::Status& status, int exit_code) {
  std::cerr << "bearing: " << status.message() << '\n';
  return exit_code;
}

int Fail(const absl::Status& status) { return Fail(status, ExitCodeOf(status)); }

}  // namespace bearing::cli
