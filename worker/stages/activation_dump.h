// activations.safetensors (`collect.dump`): the residual stream of every training prompt at its last token, at the input of
// each block. Every rank writes the rows of its turn as they come, into one file that all share; nothing is held.
#ifndef BEARING_WORKER_STAGES_ACTIVATION_DUMP_H_
#define BEARING_WORKER_STAGES_ACTIVATION_DUMP_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/safetensors_places.h"
#include "worker/job_context.h"
#include "worker/steer/capture.h"

namespace bearing::worker {

class ActivationDump {
 public:
  static constexpr char kFileName[] = "activations.safetensors";

  // With room for all prompts of both sides. ResourceExhausted when the disk has none. Collective.
  static absl::StatusOr<ActivationDump> Create(JobContext& context, size_t positives, size_t negatives);

  // This rank's rows of a batch of `side` ("positive", "negative").
  absl::Status Add(const std::string& side, const steer::CapturedBatch& batch);

  // The file is whole. Collective.
  absl::Status Finish(JobContext& context);

 private:
  explicit ActivationDump(sharding::SafetensorsPlaces file) : file_(std::move(file)) {}
  sharding::SafetensorsPlaces file_;
};

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_ACTIVATION_DUMP_H_
