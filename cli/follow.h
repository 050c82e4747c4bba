// Follows a job to its end: shows progress, heeds signals, looks after whatever else must stay alive meanwhile.
#ifndef BEARING_CLI_FOLLOW_H_
#define BEARING_CLI_FOLLOW_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
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
  // Detach when the job has not ended by then.
  absl::Time deadline = absl::InfiniteFuture();
};

struct FollowOutcome {
  enum class How { kEnded, kInterrupted, kBroken, kLost, kTimedOut };
  How how = How::kLost;
  bearing::v1::Job job;  // As last seen.
  absl::Status status;   // Why the watch was lost, with kLost.
};

FollowOutcome FollowJob(JobsClient& client, const bearing::v1::Job& job, SignalFile& signals, ProgressPrinter& printer,
                        const FollowOptions& options);

struct WatchOptions {
  bool print_result = true;                           // To standard output in the wanted format; else to standard error.
  bool quiet = false;                                 // Without progress.
  absl::Duration timeout = absl::InfiniteDuration();  // Then it detaches.
};

// Follows a job without owning it: a signal or the timeout detaches, and it is said how to attach again. Says what became of
// the job. Returns the exit code: the job's, kExitInterrupted or, after the timeout, kExitUnavailable.
int WatchToEnd(JobsClient& client, const bearing::v1::Job& job, SignalFile& signals, const Globals& globals,
               const WatchOptions& options);

// Adds --timeout (e.g. 30s, 10m, 1h30m) to a command.
void AddTimeoutOption(CLI::App& command, absl::Duration& timeout);

// A printer for this process's standard error.
ProgressPrinter MakeProgressPrinter(bool wanted);

}  // namespace bearing::cli

#endif  // BEARING_CLI_FOLLOW_H_
