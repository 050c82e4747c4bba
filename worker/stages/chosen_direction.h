// The direction a job chose, on every rank.
#ifndef BEARING_WORKER_STAGES_CHOSEN_DIRECTION_H_
#define BEARING_WORKER_STAGES_CHOSEN_DIRECTION_H_

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "worker/job_context.h"
#include "worker/model/intervention.h"

namespace bearing::worker {

struct ChosenDirection {
  at::Tensor unit;             // [D] fp32
  at::Tensor mean_difference;  // [D] fp32
  int64_t layer = 0;

  model::Intervention Ablation() const;
  model::Intervention Addition(double factor) const;
};

// Reads direction.safetensors on rank 0 and shares it. Collective.
absl::StatusOr<ChosenDirection> LoadChosenDirection(JobContext& context);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_CHOSEN_DIRECTION_H_
