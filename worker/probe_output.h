// probe.safetensors, filled as batches come, and the means and quantiles over it. Rank 0 alone uses it. Not thread-safe.
#ifndef BEARING_WORKER_PROBE_OUTPUT_H_
#define BEARING_WORKER_PROBE_OUTPUT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "jobs/report/probe_report.h"
#include "sharding/safetensors_places.h"
#include "worker/probe_inputs.h"
#include "worker/steer/probe.h"

namespace bearing::worker {

struct ProbeShape {
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t d_model = 0;
  size_t token_prompts = 0;
};

class ProbeOutput {
 public:
  // The file, with room for all numbers. `inputs` must outlive this.
  static absl::StatusOr<ProbeOutput> Create(const std::string& path, const ProbeInputs& inputs, const ProbeShape& shape,
                                            const std::string& dtype);

  // Enters a batch of set `set`.
  absl::Status Take(size_t set, const steer::ProbedBatch& batch);

  // Means, and quantiles from the file, which gets its name: `report.sets` and `largest_remainder`.
  absl::Status Finish(jobs::ProbeReport& report);

 private:
  ProbeOutput(sharding::SafetensorsPlaces file, const ProbeInputs& inputs, const ProbeShape& shape);

  absl::Status TakeTokens(size_t set, const steer::ProbedBatch::Tokens& tokens);
  absl::Status ReadCurves(size_t set, jobs::ProbeReport::Set& out);

  sharding::SafetensorsPlaces file_;
  const ProbeInputs& inputs_;
  ProbeShape shape_;
  struct SetSums {
    at::Tensor embedding, attention, mlp, heads;  // [K], [K, L], [K, L], [K, L, H], fp64.
    std::vector<jobs::ProbeReport::TokenMap> tokens;
  };
  std::vector<SetSums> sums_;
  double largest_remainder_ = 0;
};

}  // namespace bearing::worker

#endif  // BEARING_WORKER_PROBE_OUTPUT_H_
