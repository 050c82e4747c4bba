// The text of a job's progress: pure functions from a job and the time to one line. Who prints it where: progress_printer.h.
#ifndef BEARING_CLI_PROGRESS_H_
#define BEARING_CLI_PROGRESS_H_

#include <cstdint>
#include <string>

#include "bearing/v1/job.pb.h"

namespace bearing::cli {

// When the running stage was first seen, and how much of it was done then: what rate and time left are reckoned from.
// Times are seconds of any one clock.
struct StageClock {
  bearing::v1::Stage stage = bearing::v1::STAGE_UNSPECIFIED;
  double started = 0;
  int64_t done_at_start = 0;
};

// The clock after seeing `job` at time `now`: started anew when the stage changed, or when its count went back.
StageClock Advance(const StageClock& clock, const bearing::v1::Job& job, double now);

// Units a second since the clock started; 0 while that is unknown.
double Rate(const StageClock& clock, const bearing::v1::Job& job, double now);

// "0:07", "12:34", "1:02:03".
std::string FormatClock(double seconds);

// "collect  [#####.....]  50/100 prompts  12.5/s  0:04 left  note", cut to `width` characters.
std::string LiveLine(const StageClock& clock, const bearing::v1::Job& job, double now, int width);

// The same for logs, without a bar: "collect: 50/100 prompts, 12.5/s, 0:04 left, note".
std::string PlainLine(const StageClock& clock, const bearing::v1::Job& job, double now);

// "collect    12.3 s", with "  (resumed)" when the stage's artifact was there already, "  (from another job)" when it was taken
// from one.
std::string StageEndLine(const bearing::v1::StageTime& time);

// At most `width` characters (not bytes) of UTF-8 text without control characters, "..." in place of what is cut off.
std::string CutToWidth(const std::string& text, int width);

}  // namespace bearing::cli

#endif  // BEARING_CLI_PROGRESS_H_
