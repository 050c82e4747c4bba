// Directional ablation written into the weights: every tensor whose output is added to the residual stream loses its component
// along r (Arditi et al. 2024, eq. 5): W' = W - r (r^T W) on the d_model axis; biases likewise.
//
// The result equals ablation of the activations, if the embedding, all attention and MLP outputs and their biases are covered.
// In a model that normalizes what attention and MLP write (Gemma 2 and 3), W loses g * r instead of r, g the norm's gain: no
// write has a component along r then, but the norm's scale differs from that under ablation, and so do the logits, a little.
// Work is cut over ranks by tensor rows: no communication, memory of one tensor a rank.
#ifndef BEARING_WORKER_STEER_ORTHOGONALIZE_H_
#define BEARING_WORKER_STEER_ORTHOGONALIZE_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/checkpoint_writer.h"

namespace bearing::steer {

// Computed in fp64 from the stored values, rounded once to their type. `axis` is the axis of size d_model; direction [D] unit.
at::Tensor Orthogonalized(const at::Tensor& weight, const at::Tensor& direction, int axis);

// Names of the tensors that are edited, in the order of the layout.
std::vector<std::string> EditedTensors(const sharding::CheckpointReader& reader);

// Edits this rank's share (tensors are dealt out by size) and writes it through `writer`. `progress(done, total)` counts
// tensors of this rank; a bad status stops.
absl::Status EditTensors(const sharding::CheckpointReader& reader, sharding::CheckpointWriter& writer,
                         const at::Tensor& direction, int rank, int ranks,
                         const std::function<absl::Status(int64_t, int64_t)>& progress);

// What is left of the direction in a written tensor, as stored: |r^T W'| / |W'| (Frobenius).
struct Residue {
  std::string tensor;
  double relative = 0;
  bool finite = true;
};
absl::StatusOr<std::vector<Residue>> MeasureResidue(const sharding::CheckpointReader& edited, const at::Tensor& direction,
                                                    int rank, int ranks);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_ORTHOGONALIZE_H_
