// `calibrate`: how fast this group of ranks is, measured with the worker's own kernels at a model's shapes, for `bearing plan`.
// Takes a few seconds and reads no weights. All ranks measure at the same time, as they would work, and the slowest counts.
#ifndef BEARING_WORKER_CALIBRATE_H_
#define BEARING_WORKER_CALIBRATE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace bearing::worker {

struct CalibrateOptions {
  std::string config;  // A config.json, or a folder that holds one.
  std::string dtype = "float32";
  std::string write_to;        // Folder in which writing is timed with a file that is removed again; empty = not timed.
  int64_t plan_ranks = 0;      // Slices are those of so many ranks; 0 = of this group.
  int64_t prefix_tokens = 32;  // Of a typical prompt: shared with the others,
  int64_t prompt_tokens = 16;  // and its own.
};

// Prints a line of JSON (jobs/plan/machine.h) on rank 0. Collective.
// `device_name`: what the measurement is called where it is made on a device.
absl::Status RunCalibrate(comm::Communicator& comm, const CalibrateOptions& options, const std::string& device_name);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_CALIBRATE_H_
