// `probe`: projects the residual stream of prompts on directions, layer by layer and, for the first prompts, token by token,
// and says which attention heads and MLPs wrote the projection (worker/steer/probe.h has the formulas).
//
// Numbers of every prompt go to probe.safetensors as they come; what is held in memory besides the token ids does not grow with
// the number of prompts. probe.json has means and quantiles, probe.html the plots (docs/probe.md, docs/formats.md).
#ifndef BEARING_WORKER_PROBE_H_
#define BEARING_WORKER_PROBE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace bearing::worker {

struct ProbeOptions {
  std::string model;
  std::vector<std::string> directions;  // Files.
  std::string prompts;                  // A prompt file, or
  std::string token_ids;                // a JSON list of lists of ids.
  std::string compare;                  // A second set, in a file of the same kind; may be empty.
  std::string suffix;                   // Or the prompts with this behind them; may be empty.
  std::string column;                   // Of the prompt files.
  int count = 0;                        // Prompts of each file, from the start; 0 = all.
  int token_prompts = 4;                // Prompts of each set that are probed token by token.
  std::string out;                      // A folder, or a file that ends in .safetensors: then the numbers alone.
  std::string dtype = "float32";
};

// Collective. Errors name flag, file and row.
absl::Status RunProbe(comm::Communicator& comm, const ProbeOptions& options);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_PROBE_H_
