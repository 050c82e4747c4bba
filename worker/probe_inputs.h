// What `probe` reads: directions and sets of prompts. Every rank reads them itself; all see the same files or fail together.
#ifndef BEARING_WORKER_PROBE_INPUTS_H_
#define BEARING_WORKER_PROBE_INPUTS_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bridge/chat_tokenizer.h"
#include "jobs/report/probe_report.h"
#include "sharding/model_config.h"
#include "storage/model_source.h"
#include "worker/probe.h"
#include "worker/steer/row_batches.h"

namespace bearing::worker {

struct ProbeSet {
  std::string label;
  std::string suffix;
  steer::Rows rows;
};

struct ProbeInputs {
  at::Tensor basis_KD;  // Unit directions, fp32.
  std::vector<jobs::ProbeReport::Direction> directions;
  std::vector<ProbeSet> sets;                        // One or two.
  std::unique_ptr<bridge::ChatTokenizer> tokenizer;  // Null with token ids.

  // The text of a token; its number without a tokenizer.
  absl::StatusOr<std::string> TextOf(int32_t id) const;
};

// InvalidArgument naming the file and what is wrong: a direction of another size, zero or not finite; a prompt longer than the
// model's context; an id outside of the vocabulary.
absl::StatusOr<ProbeInputs> ReadProbeInputs(const ProbeOptions& options, const storage::ModelSource& source,
                                            const sharding::ModelConfig& config);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_PROBE_INPUTS_H_
