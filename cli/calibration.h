// Measures this machine for `bearing plan`: starts `bearing-worker calibrate` on a few ranks as `bearing run` starts workers.
#ifndef BEARING_CLI_CALIBRATION_H_
#define BEARING_CLI_CALIBRATION_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "jobs/plan/machine.h"

namespace bearing::cli {

struct CalibrationOptions {
  std::string config;  // config.json or model folder.
  std::string dtype;
  std::string write_to;  // Folder; empty = writing is not timed.
  int64_t ranks = 1;     // That are started.
  int64_t plan_ranks = 1;
  int threads = 0;  // A rank; 0 = the cores shared out.
  int64_t prefix_tokens = 0;
  int64_t prompt_tokens = 1;
};

// Takes some seconds. Internal with the worker's own words when it fails.
absl::StatusOr<jobs::Machine> MeasureMachine(const CalibrationOptions& options);

}  // namespace bearing::cli

#endif  // BEARING_CLI_CALIBRATION_H_
