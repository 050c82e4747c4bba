#include "cli/follow.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>
#include <optional>

#include "absl/time/clock.h"
#include "cli/job_names.h"
#include "cli/job_watcher.h"

namespace bearing::cli {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr absl::Duration kCancelWait = absl::Seconds(10);
// News of the end may still be on its way when a process is found dead.
constexpr absl::Duration kLastNewsWait = absl::Seconds(1);

double Seconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()); }

}  // namespace

FollowOutcome FollowJob(JobsClient& client, const bearing::v1::Job& job, SignalFile& signals, ProgressPrinter& printer,
                        const FollowOptions& options) {
  FollowOutcome outcome{.how = FollowOutcome::How::kLost, .job = job, .status = absl::OkStatus()};
  JobWatcher watcher(client, job.name());
  std::optional<absl::Time> cancel_deadline;
  std::optional<absl::Time> broken_deadline;
  while (true) {
    const JobWatcher::News news = watcher.Wait(kTick);
    const absl::Time now = absl::Now();
    for (const bearing::v1::Job& seen : news.jobs) {
      outcome.job = seen;
      printer.Update(seen, Seconds(now));
    }
    printer.Tick(Seconds(now));
    const bool ended = HasEnded(outcome.job.state());
    if (ended || news.over) {
      outcome.status = news.status;
      if (cancel_deadline.has_value()) {
        outcome.how = FollowOutcome::How::kInterrupted;
      } else if (ended) {
        outcome.how = FollowOutcome::How::kEnded;
      } else if (options.is_broken && options.is_broken()) {
        outcome.how = FollowOutcome::How::kBroken;
      }
      break;
    }
    if (signals.Take()) {
      outcome.how = FollowOutcome::How::kInterrupted;
      if (!options.cancel_on_signal || cancel_deadline.has_value()) break;
      printer.Say("cancelling the job (Ctrl-C again: at once)");
      if (!client.Cancel(job.name()).ok()) break;
      cancel_deadline = now + kCancelWait;
    }
    if (now >= options.deadline) {
      outcome.how = FollowOutcome::How::kTimedOut;
      break;
    }
    if (cancel_deadline.has_value() && now >= *cancel_deadline) {
      outcome.how = FollowOutcome::How::kInterrupted;
      break;
    }
    if (!broken_deadline.has_value() && options.is_broken && options.is_broken()) broken_deadline = now + kLastNewsWait;
    if (broken_deadline.has_value() && now >= *broken_deadline) {
      outcome.how = cancel_deadline.has_value() ? FollowOutcome::How::kInterrupted : FollowOutcome::How::kBroken;
      break;
    }
  }
  printer.Clear();
  return outcome;
}

ProgressPrinter MakeProgressPrinter(bool wanted) {
  constexpr int kDefaultWidth = 80;
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return ProgressPrinter(std::cerr, ProgressModeOfStderr(wanted), known ? size.ws_col : kDefaultWidth);
}

}  // namespace bearing::cli
