// Follows a job to its end: shows progress, heeds signals, looks after whatever else must stay alive meanwhile.
#ifndef BEARING_CLI_FOLLOW_H_
#define BEARING_CLI_FOLLOW_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "bearing/v1/job.pb.h"
#include "cli/command.h"
#include "cli/jobs_client.h"
#include "cli/progress_printer.h"
#include "cli/signals.h"

namespace bearing::cli {

struct FollowOptions {
  // On a signal: cancel the job and wait for its end up to ten seconds (a second signal ends the wait). Else detach at once.
  bool cancel_on_signal = false;
  // Asked ten times a second; true ends the following (the job's end is still awaited for a moment).
  std::function<bool()> is_broken;
};

struct FollowOutcome {
  enum class How { kEnded, kInterrupted, kBroken, kLost };
  How how = How::kLost;
  bearing::v1::Job job;  // As last seen.
  absl::Status status;   // Why the watch was lost, with kLost.
};

FollowOutcome FollowJob(JobsClient& client, const bearing::v1::Job& job, SignalFile& signals, ProgressPrinter& printer,
                        const FollowOptions& options);

// Follows a job without owning it: a signal detaches. Says what became of it; its result goes to standard output in the wanted
// format when `print_result`, else to standard error. Returns the exit code.
int WatchToEnd(JobsClient& client, const bearing::v1::Job& job, SignalFile& signals, const Globals& globals, bool print_result);

// A printer for this process's standard error.
ProgressPrinter MakeProgressPrinter(bool wanted);

}  // namespace bearing::cli

#endif  // BEARING_CLI_FOLLOW_H_
