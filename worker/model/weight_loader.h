// This rank's slice of a model's weights, in the form the decoder multiplies with.
#ifndef BEARING_WORKER_MODEL_WEIGHT_LOADER_H_
#define BEARING_WORKER_MODEL_WEIGHT_LOADER_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/shard_plan.h"
#include "worker/model/linear.h"

namespace bearing::model {

struct LayerWeights {
  at::Tensor input_norm;  // [D]
  Linear qkv;             // [(H + 2 KV) * E, D] of this rank: queries, keys, values.
  Linear attention_out;   // [D, H * E]; the bias on rank 0 only, since partial products are summed.
  at::Tensor mlp_norm;    // [D]
  Linear gate_up;         // [2F, D]: gate, then up.
  Linear down;            // [D, F]; bias as attention_out.
};

struct Weights {
  at::Tensor embedding;  // [V of this rank, D] in the type of the disk.
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // [D]
  Linear unembedding;     // [V of this rank, D]
};

// Type of the disk as libtorch knows it; Unimplemented for others than F32, BF16, F16.
absl::StatusOr<at::ScalarType> ToScalarType(sharding::DType dtype);

// Reads the slice of `rank`. `progress(done, total)` is called after each layer. Errors are those of the reader.
absl::StatusOr<Weights> LoadWeights(const sharding::CheckpointReader& reader, const sharding::ShardPlan& plan, int rank,
                                    at::ScalarType dtype, GemmPath path, const std::function<void(int64_t, int64_t)>& progress);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_WEIGHT_LOADER_H_
