#include "worker/stages/chosen_direction.h"

#include <ATen/ATen.h>

#include "absl/strings/numbers.h"
#include "sharding/status_macros.h"
#include "worker/steer/direction_file.h"

namespace bearing::worker {

model::Intervention ChosenDirection::Ablation() const {
  model::Intervention intervention;
  intervention.ablate_basis = unit.unsqueeze(0);
  return intervention;
}

model::Intervention ChosenDirection::Addition(double factor) const {
  model::Intervention intervention;
  intervention.add = (mean_difference * factor).contiguous();
  intervention.add_layer = layer;
  return intervention;
}

absl::StatusOr<ChosenDirection> LoadChosenDirection(JobContext& context) {
  const int64_t d_model = context.reader->config().d_model;
  // Row 0: unit vector, row 1: mean difference, last column of row 2: the layer.
  at::Tensor shared = at::zeros({3, d_model}, at::kFloat);
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(const steer::Direction direction,
                             steer::ReadDirection(context.output->PathOf("direction.safetensors"), d_model));
    int64_t layer = 0;
    const auto found = direction.metadata.find("layer");
    if (found == direction.metadata.end() || !absl::SimpleAtoi(found->second, &layer)) {
      return absl::DataLossError("direction.safetensors does not name its layer");
    }
    shared[0].copy_(direction.unit);
    shared[1].copy_(direction.added());
    shared[2].fill_(static_cast<double>(layer));
    return absl::OkStatus();
  }));
  BEARING_RETURN_IF_ERROR(context.comm->Broadcast(shared, 0));
  ChosenDirection direction;
  direction.unit = shared[0].clone();
  direction.mean_difference = shared[1].clone();
  direction.layer = static_cast<int64_t>(shared[2][0].item<float>());
  return direction;
}

}  // namespace bearing::worker
