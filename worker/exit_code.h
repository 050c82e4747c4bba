// What a program of this folder ends with: the exit codes of the command line (docs/formats.md).
#ifndef BEARING_WORKER_EXIT_CODE_H_
#define BEARING_WORKER_EXIT_CODE_H_

#include "absl/status/status.h"

namespace bearing::worker {

inline int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
      return 2;
    case absl::StatusCode::kNotFound:
      return 3;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return 4;
    case absl::StatusCode::kAlreadyExists:
      return 6;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return 5;
    default:
      return 1;
  }
}

}  // namespace bearing::worker

#endif  // BEARING_WORKER_EXIT_CODE_H_
