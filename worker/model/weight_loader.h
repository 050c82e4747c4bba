// This rank's slice of a model's weights, in the form the decoder multiplies with, on the device it multiplies on.
#ifndef BEARING_WORKER_MODEL_WEIGHT_LOADER_H_
#define BEARING_WORKER_MODEL_WEIGHT_LOADER_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/shard_plan.h"
#include "worker/model/kernels.h"
#include "worker/model/linear.h"
#include "worker/model/mixture.h"

namespace bearing::model {

struct LayerWeights {
  NormGain input_norm;           // [D]
  Linear qkv;                    // [(H + 2 KV) * E, D] of this rank: queries, keys, values.
  NormGain query_norm;           // [E]; empty without qk_norm.
  NormGain key_norm;             // [E]
  Linear attention_out;          // [D, H * E]; the bias on rank 0 only, since partial products are summed.
  NormGain attention_post_norm;  // [D]; empty without post_norms.
  NormGain mlp_norm;             // [D]
  GatedMlp mlp;                  // The bias of down as that of attention_out. Empty in a mixture.
  MixtureWeights mixture;        // Empty in a dense layer.
  NormGain mlp_post_norm;        // [D]
};

// What stands before and behind the layers.
struct EndWeights {
  at::Tensor embedding;  // [V of this rank, D] in the type of the disk.
  NormGain final_norm;   // [D]
  Linear unembedding;    // [V of this rank, D]
};

// Type of the disk as libtorch knows it; Unimplemented for others than F32, BF16, F16.
absl::StatusOr<at::ScalarType> ToScalarType(sharding::DType dtype);

// Reads this rank's slices, layer by layer. Errors are those of the reader. Thread-safe.
class WeightLoader {
 public:
  // `reader` must outlive the loader.
  WeightLoader(const sharding::CheckpointReader& reader, const sharding::ShardPlan& plan, int rank, at::ScalarType dtype,
               GemmPath path, at::Device device);

  absl::StatusOr<EndWeights> LoadEnds() const;

  absl::StatusOr<LayerWeights> LoadLayer(int64_t layer) const;

  // What a layer's heads write with: the weight [D, H * E] of this rank's heads as the product has it, fp32, and the norm
  // behind.
  struct AttentionOut {
    at::Tensor weight;
    NormGain post_norm;  // Empty without post_norms.
  };
  absl::StatusOr<AttentionOut> LoadAttentionOut(int64_t layer) const;

 private:
  using Roles = absl::Span<const sharding::ParamRole>;

  // The rank's slice of a role as it is on disk, on its way to the device; undefined if the model has no such tensor.
  absl::StatusOr<at::Tensor> Read(sharding::ParamRole role, int64_t layer, int64_t expert = -1) const;

  // Several roles stacked along the output axis; all there or all absent.
  absl::StatusOr<at::Tensor> ReadStacked(Roles roles, int64_t layer, int64_t expert = -1) const;

  absl::StatusOr<Linear> LoadLinear(Roles roles, int64_t layer, int64_t expert = -1, Roles biases = {}) const;
  absl::StatusOr<NormGain> LoadNorm(sharding::ParamRole role, int64_t layer) const;
  absl::StatusOr<MixtureWeights> LoadMixture(int64_t layer) const;

  const sharding::CheckpointReader& reader_;
  sharding::RankPlan plan_;
  bool adds_biases_;  // Of row-parallel products: on one rank only.
  at::ScalarType dtype_;
  GemmPath path_;
  at::Device device_;
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_WEIGHT_LOADER_H_
