#include "worker/model/weight_loader.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::model {
namespace {

using sharding::ParamEntry;
using sharding::ParamRole;

class SliceReader {
 public:
  SliceReader(const sharding::CheckpointReader& reader, const sharding::RankPlan& rank) : reader_(reader), rank_(rank) {}

  // The rank's slice of a role; undefined if the model has no such tensor.
  absl::StatusOr<at::Tensor> Read(ParamRole role, int64_t layer) const {
    const ParamEntry* entry = reader_.layout().Find(role, layer);
    if (entry == nullptr) return at::Tensor();
    BEARING_ASSIGN_OR_RETURN(const auto location, reader_.Find(entry->name));
    BEARING_ASSIGN_OR_RETURN(const at::ScalarType type, ToScalarType(reader_.entry(location).dtype));
    const sharding::Range range = sharding::SliceOf(*entry, rank_);
    std::vector<int64_t> shape = entry->shape;
    shape[entry->cut_axis] = range.size();
    at::Tensor slice = at::empty(shape, type);
    BEARING_RETURN_IF_ERROR(reader_.ReadSlice(entry->name, entry->cut_axis, range,
                                              absl::MakeSpan(static_cast<char*>(slice.data_ptr()), slice.nbytes())));
    return slice;
  }

  // Several roles stacked along the output axis; all there or all absent.
  absl::StatusOr<at::Tensor> ReadStacked(std::initializer_list<ParamRole> roles, int64_t layer) const {
    std::vector<at::Tensor> parts;
    for (const ParamRole role : roles) {
      BEARING_ASSIGN_OR_RETURN(at::Tensor part, Read(role, layer));
      if (part.defined()) parts.push_back(std::move(part));
    }
    if (parts.empty()) return at::Tensor();
    return at::cat(parts, 0);
  }

 private:
  const sharding::CheckpointReader& reader_;
  const sharding::RankPlan& rank_;
};

}  // namespace

absl::StatusOr<at::ScalarType> ToScalarType(sharding::DType dtype) {
  switch (dtype) {
    case sharding::DType::kF32:
      return at::kFloat;
    case sharding::DType::kBF16:
      return at::kBFloat16;
    case sharding::DType::kF16:
      return at::kHalf;
    default:
      return absl::UnimplementedError(
          absl::StrCat("weights of this type are not supported: dtype=", std::string(sharding::DTypeName(dtype))));
  }
}

absl::StatusOr<Weights> LoadWeights(const sharding::CheckpointReader& reader, const sharding::ShardPlan& plan, int rank,
                                    at::ScalarType dtype, GemmPath path,
                                    const std::function<void(int64_t, int64_t)>& progress) {
  const SliceReader slices(reader, plan.ranks[rank]);
  const int64_t num_layers = reader.config().num_layers();
  const int64_t steps = num_layers + 2;
  Weights weights;
  const auto linear = [&](std::initializer_list<ParamRole> roles, std::initializer_list<ParamRole> biases, int64_t layer,
                          bool bias_here) -> absl::StatusOr<Linear> {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor weight, slices.ReadStacked(roles, layer));
    at::Tensor bias;
    if (bias_here) {
      BEARING_ASSIGN_OR_RETURN(bias, slices.ReadStacked(biases, layer));
    }
    return Linear(weight, bias, dtype, path);
  };
  const auto norm = [&](ParamRole role, int64_t layer) -> absl::StatusOr<at::Tensor> {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor weight, slices.Read(role, layer));
    return weight.to(dtype);
  };

  BEARING_ASSIGN_OR_RETURN(weights.embedding, slices.Read(ParamRole::kEmbedding, -1));
  progress(1, steps);
  for (int64_t l = 0; l < num_layers; ++l) {
    LayerWeights layer;
    BEARING_ASSIGN_OR_RETURN(layer.input_norm, norm(ParamRole::kInputNorm, l));
    BEARING_ASSIGN_OR_RETURN(layer.mlp_norm, norm(ParamRole::kMlpNorm, l));
    BEARING_ASSIGN_OR_RETURN(layer.qkv, linear({ParamRole::kQuery, ParamRole::kKey, ParamRole::kValue},
                                               {ParamRole::kQueryBias, ParamRole::kKeyBias, ParamRole::kValueBias}, l, true));
    BEARING_ASSIGN_OR_RETURN(layer.attention_out,
                             linear({ParamRole::kAttentionOut}, {ParamRole::kAttentionOutBias}, l, rank == 0));
    BEARING_ASSIGN_OR_RETURN(layer.gate_up,
                             linear({ParamRole::kGate, ParamRole::kUp}, {ParamRole::kGateBias, ParamRole::kUpBias}, l, true));
    BEARING_ASSIGN_OR_RETURN(layer.down, linear({ParamRole::kDown}, {ParamRole::kDownBias}, l, rank == 0));
    weights.layers.push_back(std::move(layer));
    progress(l + 2, steps);
  }
  BEARING_ASSIGN_OR_RETURN(weights.final_norm, norm(ParamRole::kFinalNorm, -1));
  // A tied model's unembedding is its embedding, whether or not the file stores it a second time.
  at::Tensor unembedding = weights.embedding;
  if (!reader.config().tied_embeddings) {
    BEARING_ASSIGN_OR_RETURN(unembedding, slices.Read(ParamRole::kUnembedding, -1));
  }
  weights.unembedding = Linear(unembedding, at::Tensor(), dtype, path);
  progress(steps, steps);
  return weights;
}

}  // namespace bearing::model
