#include "cli/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/job_names.h"

namespace bearing::cli {
namespace {

using bearing::v1::Job;
using bearing::v1::Progress;

constexpr int kBarCells = 20;
// A rate from less than this is noise.
constexpr double kMinRateSeconds = 0.5;

std::string Bar(const Progress& progress) {
  const double share = std::clamp(static_cast<double>(progress.done()) / static_cast<double>(progress.total()), 0.0, 1.0);
  const int full = static_cast<int>(share * kBarCells);
  return absl::StrCat("[", std::string(full, '#'), std::string(kBarCells - full, '.'), "]");
}

std::string Count(const Progress& progress) {
  std::string text = absl::StrCat(progress.done());
  if (progress.total() > 0) absl::StrAppend(&text, "/", progress.total());
  if (!progress.unit().empty()) absl::StrAppend(&text, " ", progress.unit());
  return text;
}

std::string FormatRate(double rate) { return rate >= 100 ? absl::StrFormat("%.0f/s", rate) : absl::StrFormat("%.3g/s", rate); }

// What the line says after the stage's name, in order.
std::vector<std::string> Parts(const StageClock& clock, const Job& job, double now, bool with_bar) {
  const Progress& progress = job.progress();
  std::vector<std::string> parts;
  const bool counted = progress.total() > 0 || progress.done() > 0;
  if (counted) {
    if (with_bar && progress.total() > 0) parts.push_back(Bar(progress));
    parts.push_back(Count(progress));
    const double rate = Rate(clock, job, now);
    if (rate > 0) {
      parts.push_back(FormatRate(rate));
      if (progress.total() > progress.done()) {
        parts.push_back(absl::StrCat(FormatClock(static_cast<double>(progress.total() - progress.done()) / rate), " left"));
      }
    }
  } else {
    parts.push_back(FormatClock(now - clock.started));
  }
  if (!progress.note().empty()) parts.push_back(progress.note());
  return parts;
}

std::string Title(const Job& job) {
  if (job.state() == bearing::v1::JOB_STATE_QUEUED || job.state() == bearing::v1::JOB_STATE_UNSPECIFIED) {
    return "waiting for workers";
  }
  if (job.state() == bearing::v1::JOB_STATE_CANCELLING) return "cancelling";
  const std::string stage = StageName(job.progress().stage());
  return stage.empty() ? "starting" : stage;
}

}  // namespace

StageClock Advance(const StageClock& clock, const Job& job, double now) {
  const Progress& progress = job.progress();
  const bool first = clock.stage == bearing::v1::STAGE_UNSPECIFIED && clock.started == 0;
  if (!first && progress.stage() == clock.stage && progress.done() >= clock.done_at_start) return clock;
  return {.stage = progress.stage(), .started = now, .done_at_start = progress.done()};
}

double Rate(const StageClock& clock, const Job& job, double now) {
  const double seconds = now - clock.started;
  const int64_t done = job.progress().done() - clock.done_at_start;
  if (seconds < kMinRateSeconds || done <= 0) return 0;
  return static_cast<double>(done) / seconds;
}

std::string FormatClock(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 3.6e6)));
  if (whole < 3600) return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
  return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string LiveLine(const StageClock& clock, const Job& job, double now, int width) {
  const std::string line =
      absl::StrCat(absl::StrFormat("%-9s", Title(job)), " ", absl::StrJoin(Parts(clock, job, now, /*with_bar=*/true), "  "));
  return CutToWidth(line, width);
}

std::string PlainLine(const StageClock& clock, const Job& job, double now) {
  const std::string line = absl::StrCat(Title(job), ": ", absl::StrJoin(Parts(clock, job, now, /*with_bar=*/false), ", "));
  return CutToWidth(line, 1000);
}

std::string StageEndLine(const bearing::v1::StageTime& time) {
  std::string line = absl::StrFormat("%-9s %7.1f s", StageName(time.stage()), time.seconds());
  if (time.shared()) return line + "  (from another job)";
  if (time.resumed()) return line + "  (resumed)";
  if (time.tokens() > 0 && time.seconds() > 0) {
    absl::StrAppendFormat(&line, "  %8.0f tokens/s", time.tokens() / time.seconds());
    if (time.utilization() > 0) absl::StrAppendFormat(&line, ", %2.0f %% of the product rate", 100 * time.utilization());
  }
  return line;
}

std::string CutToWidth(const std::string& text, int width) {
  constexpr int kDots = 3;
  std::string clean;
  std::vector<size_t> starts;  // Byte offset in `clean` of each character.
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool continues = (byte & 0xC0) == 0x80;
    if (!continues) starts.push_back(clean.size());
    clean.push_back(byte < 0x20 || byte == 0x7F ? ' ' : c);
  }
  if (static_cast<int>(starts.size()) <= width) return clean;
  if (width <= kDots) return clean.substr(0, starts[std::max(width, 0)]);
  return absl::StrCat(clean.substr(0, starts[width - kDots]), "...");
}

}  // namespace bearing::cli
