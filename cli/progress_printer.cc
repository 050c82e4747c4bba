#include "cli/progress_printer.h"

#include <unistd.h>

#include <cstdlib>
#include <ostream>
#include <string>
#include <string_view>

#include "cli/job_names.h"

namespace bearing::cli {
namespace {

constexpr double kPlainSeconds = 10;

}  // namespace

ProgressMode ProgressModeOfStderr(bool wanted) {
  if (!wanted) return ProgressMode::kNone;
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::string_view(term) == "dumb" || std::string_view(term).empty();
  const bool ci = std::getenv("CI") != nullptr;
  return isatty(STDERR_FILENO) == 1 && !dumb && !ci ? ProgressMode::kLive : ProgressMode::kPlain;
}

ProgressPrinter::ProgressPrinter(std::ostream& out, ProgressMode mode, int width) : out_(out), mode_(mode), width_(width) {}

ProgressPrinter::~ProgressPrinter() { Clear(); }

void ProgressPrinter::Update(const bearing::v1::Job& job, double now) {
  if (mode_ == ProgressMode::kNone) return;
  clock_ = Advance(clock_, job, now);
  job_ = job;
  has_job_ = true;
  PrintStageEnds(job);
  if (mode_ == ProgressMode::kPlain && !HasEnded(job.state())) {
    const bool changed = !plain_printed_ || job.progress().stage() != plain_stage_;
    if (changed || now - plain_time_ >= kPlainSeconds) {
      out_ << PlainLine(clock_, job, now) << '\n' << std::flush;
      plain_stage_ = job.progress().stage();
      plain_time_ = now;
      plain_printed_ = true;
    }
  }
  Tick(now);
}

void ProgressPrinter::Tick(double now) {
  if (mode_ == ProgressMode::kPlain && has_job_ && !HasEnded(job_.state()) && now - plain_time_ >= kPlainSeconds) {
    out_ << PlainLine(clock_, job_, now) << '\n' << std::flush;
    plain_time_ = now;
  }
  if (mode_ != ProgressMode::kLive || !has_job_) return;
  if (HasEnded(job_.state())) return Clear();
  // One column is left free: a full line would wrap on some terminals.
  std::string line = LiveLine(clock_, job_, now, width_ - 1);
  if (line == live_line_) return;
  out_ << "\r\x1b[K" << line << std::flush;
  live_line_ = std::move(line);
}

void ProgressPrinter::Say(const std::string& line) {
  Clear();
  out_ << line << '\n' << std::flush;
}

void ProgressPrinter::Clear() {
  if (live_line_.empty()) return;
  out_ << "\r\x1b[K" << std::flush;
  live_line_.clear();
}

void ProgressPrinter::PrintStageEnds(const bearing::v1::Job& job) {
  // A new attempt starts its list again.
  if (job.stage_times_size() < stage_ends_printed_) stage_ends_printed_ = 0;
  for (; stage_ends_printed_ < job.stage_times_size(); ++stage_ends_printed_) {
    Say(StageEndLine(job.stage_times(stage_ends_printed_)));
  }
}

}  // namespace bearing::cli
