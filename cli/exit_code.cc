#include "cli/exit_code.h"

namespace bearing::cli {

std::vector<ExitCodeMeaning> ExitCodeMeanings() {
  return {{kExitOk, "done; of a job: succeeded"},
          {kExitFailed, "the job failed, or anything not named below"},
          {kExitInvalid, "wrong usage, or a job that cannot be run as it stands"},
          {kExitNotFound, "no such job or context"},
          {kExitDenied, "not authenticated, or not permitted"},
          {kExitUnavailable, "server not reached, or not in time"},
          {kExitConflict, "conflict: something exists already, or is in another state"},
          {kExitCancelled, "the job was cancelled"},
          {kExitInterrupted, "interrupted; of watch: detached"}};
}

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitInvalid;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kExitDenied;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnavailable;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kFailedPrecondition:
      return kExitConflict;
    default:
      return kExitFailed;
  }
}

int ExitCodeOfNewJob(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kDataLoss:
      return kExitInvalid;
    default:
      return ExitCodeOf(status);
  }
}

int ExitCodeOf(bearing::v1::JobState state) {
  switch (state) {
    case bearing::v1::JOB_STATE_SUCCEEDED:
      return kExitOk;
    case bearing::v1::JOB_STATE_CANCELLED:
      return kExitCancelled;
    default:
      return kExitFailed;
  }
}

}  // namespace bearing::cli
