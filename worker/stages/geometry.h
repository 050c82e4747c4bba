// Geometry of the training prompts at the last position, layer by layer: part of the collect stage.
#ifndef BEARING_WORKER_STAGES_GEOMETRY_H_
#define BEARING_WORKER_STAGES_GEOMETRY_H_

#include <vector>

#include "absl/status/status.h"
#include "worker/job_context.h"
#include "worker/steer/geometry.h"

namespace bearing::worker {

// Prompts of each side that it looks at, the first that the filter keeps: memory and time do not grow with the sets.
inline constexpr int64_t kGeometryPrompts = 256;

struct GeometrySide {
  const steer::LastRows* rows = nullptr;
  const std::vector<int>* kept = nullptr;  // Prompts, ascending; the same on every rank.
};

// One layer of both sides meets in one all-reduce of N x d_model fp32; the layers are then shared out over the ranks.
// `difference_PLD`: the mean differences of all positions and layers. -> geometry.json. Collective over all ranks.
absl::Status WriteGeometry(JobContext& context, const GeometrySide& positive, const GeometrySide& negative,
                           const at::Tensor& difference_PLD);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_GEOMETRY_H_
