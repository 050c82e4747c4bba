// Prints a job's progress while it runs: on a terminal one live line, rewritten in place; elsewhere one line a stage and at
// most one every ten seconds. Either way one line when a stage ends. Not thread-safe.
#ifndef BEARING_CLI_PROGRESS_PRINTER_H_
#define BEARING_CLI_PROGRESS_PRINTER_H_

#include <ostream>
#include <string>

#include "bearing/v1/job.pb.h"
#include "cli/progress.h"

namespace bearing::cli {

enum class ProgressMode { kNone, kPlain, kLive };

// For the standard error of this process: kLive when it is a terminal that can move the cursor.
ProgressMode ProgressModeOfStderr(bool wanted);

class ProgressPrinter {
 public:
  // `out` must outlive the printer. `width` is the terminal's, for kLive.
  ProgressPrinter(std::ostream& out, ProgressMode mode, int width);
  ~ProgressPrinter();
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

  // Takes the job's newest state.
  void Update(const bearing::v1::Job& job, double now);

  // Rewrites the live line (time goes on without news of the job).
  void Tick(double now);

  // Prints a line of its own above the live line, in every mode.
  void Say(const std::string& line);

  // Removes the live line.
  void Clear();

 private:
  void PrintStageEnds(const bearing::v1::Job& job);

  std::ostream& out_;
  ProgressMode mode_;
  int width_;
  bearing::v1::Job job_;
  bool has_job_ = false;
  StageClock clock_;
  std::string live_line_;
  int stage_ends_printed_ = 0;
  bearing::v1::Stage plain_stage_ = bearing::v1::STAGE_UNSPECIFIED;
  double plain_time_ = 0;
  bool plain_printed_ = false;
};

}  // namespace bearing::cli

#endif  // BEARING_CLI_PROGRESS_PRINTER_H_
