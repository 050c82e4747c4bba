// The forward pass of an edit that was not made: what EditSpec removes from weights, as an intervention on activations. One
// definition of strengths for both (EditSpec::StrengthOf).
#ifndef BEARING_WORKER_INTERVENTION_OF_H_
#define BEARING_WORKER_INTERVENTION_OF_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/edit/edit_spec.h"
#include "worker/model/intervention.h"

namespace bearing::worker {

// The removal of the spec's directions. Its logits are those of the edited model up to rounding, where no norm stands behind a
// writer and norms are not preserved (an addition and variants of the weights are no part of it). InvalidArgument for layers
// outside of the model and for directions that are none.
absl::StatusOr<model::Intervention> RemovalOf(const edit::EditSpec& spec, int64_t num_layers, int64_t d_model);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_INTERVENTION_OF_H_
