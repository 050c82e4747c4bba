// What the program's exit status says. Scripts depend on these numbers: they are part of the interface.
#ifndef BEARING_CLI_EXIT_CODE_H_
#define BEARING_CLI_EXIT_CODE_H_

#include <vector>

#include "absl/status/status.h"
#include "bearing/v1/job.pb.h"

namespace bearing::cli {

// What each means: ExitCodeMeanings().
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitInvalid = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitDenied = 4;
inline constexpr int kExitUnavailable = 5;
inline constexpr int kExitConflict = 6;
inline constexpr int kExitCancelled = 7;
inline constexpr int kExitInterrupted = 130;

// All of them in words, for help and manual.
struct ExitCodeMeaning {
  int code;
  const char* meaning;
};
std::vector<ExitCodeMeaning> ExitCodeMeanings();

int ExitCodeOf(const absl::Status& status);

// The same for the answer to a new job: whatever is wrong with the job or its model is kExitInvalid.
int ExitCodeOfNewJob(const absl::Status& status);

// For a job that ended; a job that did not end is kExitFailed.
int ExitCodeOf(bearing::v1::JobState state);

}  // namespace bearing::cli

#endif  // BEARING_CLI_EXIT_CODE_H_
