#include "worker/model/weight_loader.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/model/device_memory.h"

namespace bearing::model {

using sharding::ParamEntry;
using sharding::ParamRole;

namespace {

// What a product stacks along its output axis.
constexpr ParamRole kQkv[] = {ParamRole::kQuery, ParamRole::kKey, ParamRole::kValue};
constexpr ParamRole kQkvBias[] = {ParamRole::kQueryBias, ParamRole::kKeyBias, ParamRole::kValueBias};
constexpr ParamRole kAttentionOut[] = {ParamRole::kAttentionOut};
constexpr ParamRole kAttentionOutBias[] = {ParamRole::kAttentionOutBias};
constexpr ParamRole kGateUp[] = {ParamRole::kGate, ParamRole::kUp};
constexpr ParamRole kGateUpBias[] = {ParamRole::kGateBias, ParamRole::kUpBias};
constexpr ParamRole kDown[] = {ParamRole::kDown};
constexpr ParamRole kDownBias[] = {ParamRole::kDownBias};
constexpr ParamRole kRouter[] = {ParamRole::kRouter};
constexpr ParamRole kExpertGateUp[] = {ParamRole::kExpertGate, ParamRole::kExpertUp};
constexpr ParamRole kExpertDown[] = {ParamRole::kExpertDown};
constexpr ParamRole kSharedRouter[] = {ParamRole::kSharedRouter};
constexpr ParamRole kSharedGateUp[] = {ParamRole::kSharedGate, ParamRole::kSharedUp};
constexpr ParamRole kSharedDown[] = {ParamRole::kSharedDown};

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

WeightLoader::WeightLoader(const sharding::CheckpointReader& reader, const sharding::ShardPlan& plan, int rank,
                           at::ScalarType dtype, GemmPath path, at::Device device)
    : reader_(reader), plan_(plan.ranks[rank]), adds_biases_(rank == 0), dtype_(dtype), path_(path), device_(device) {}

absl::StatusOr<at::Tensor> WeightLoader::Read(ParamRole role, int64_t layer, int64_t expert) const {
  const ParamEntry* entry = reader_.layout().Find(role, layer, expert);
  if (entry == nullptr) return at::Tensor();
  BEARING_ASSIGN_OR_RETURN(const auto location, reader_.Find(entry->name));
  BEARING_ASSIGN_OR_RETURN(const at::ScalarType type, ToScalarType(reader_.entry(location).dtype));
  sharding::Range range = sharding::SliceOf(*entry, plan_);
  std::vector<int64_t> shape = entry->shape;
  shape[entry->cut_axis] = range.size();
  at::Tensor slice = StagingTensor(shape, type, device_);
  if (entry->cut_axis == 0) range = {range.begin + entry->disk_offset, range.end + entry->disk_offset};
  BEARING_RETURN_IF_ERROR(reader_.ReadSlice(entry->name, entry->cut_axis, range,
                                            absl::MakeSpan(static_cast<char*>(slice.data_ptr()), slice.nbytes())));
  return SendStaged(slice, device_);
}

absl::StatusOr<at::Tensor> WeightLoader::ReadStacked(Roles roles, int64_t layer, int64_t expert) const {
  std::vector<at::Tensor> parts;
  for (const ParamRole role : roles) {
    BEARING_ASSIGN_OR_RETURN(at::Tensor part, Read(role, layer, expert));
    if (part.defined()) parts.push_back(std::move(part));
  }
  if (parts.empty()) return at::Tensor();
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

absl::StatusOr<Linear> WeightLoader::LoadLinear(Roles roles, int64_t layer, int64_t expert, Roles biases) const {
  BEARING_ASSIGN_OR_RETURN(const at::Tensor weight, ReadStacked(roles, layer, expert));
  BEARING_ASSIGN_OR_RETURN(const at::Tensor bias, ReadStacked(biases, layer));
  return Linear(weight, bias, dtype_, path_);
}

absl::StatusOr<NormGain> WeightLoader::LoadNorm(ParamRole role, int64_t layer) const {
  BEARING_ASSIGN_OR_RETURN(const at::Tensor weight, Read(role, layer));
  if (!weight.defined()) return NormGain();
  const bool unit_offset = reader_.config().norm.unit_offset;
  // The file's values as the compute type holds them.
  const at::Tensor gain = weight.to(dtype_).to(at::kFloat);
  return NormGain{unit_offset ? gain + 1.0 : gain, /*cast_first=*/!unit_offset};
}

absl::StatusOr<MixtureWeights> WeightLoader::LoadMixture(int64_t layer) const {
  const sharding::MoeSpec& spec = reader_.config().layers[layer].moe;
  MixtureWeights weights;
  BEARING_ASSIGN_OR_RETURN(weights.router, LoadLinear(kRouter, layer));
  weights.experts.resize(spec.num_experts);
  for (int64_t e = 0; e < spec.num_experts; ++e) {
    GatedMlp& expert = weights.experts[e];
    BEARING_ASSIGN_OR_RETURN(expert.gate_up, LoadLinear(kExpertGateUp, layer, e));
    BEARING_ASSIGN_OR_RETURN(expert.down, LoadLinear(kExpertDown, layer, e));
  }
  if (spec.shared_size > 0) {
    BEARING_ASSIGN_OR_RETURN(weights.shared_router, LoadLinear(kSharedRouter, layer));
    BEARING_ASSIGN_OR_RETURN(weights.shared.gate_up, LoadLinear(kSharedGateUp, layer));
    BEARING_ASSIGN_OR_RETURN(weights.shared.down, LoadLinear(kSharedDown, layer));
  }
  return weights;
}

absl::StatusOr<LayerWeights> WeightLoader::LoadLayer(int64_t layer) const {
  LayerWeights weights;
  BEARING_ASSIGN_OR_RETURN(weights.input_norm, LoadNorm(ParamRole::kInputNorm, layer));
  BEARING_ASSIGN_OR_RETURN(weights.qkv, LoadLinear(kQkv, layer, -1, kQkvBias));
  BEARING_ASSIGN_OR_RETURN(weights.query_norm, LoadNorm(ParamRole::kQueryNorm, layer));
  BEARING_ASSIGN_OR_RETURN(weights.key_norm, LoadNorm(ParamRole::kKeyNorm, layer));
  BEARING_ASSIGN_OR_RETURN(weights.attention_out,
                           LoadLinear(kAttentionOut, layer, -1, adds_biases_ ? Roles(kAttentionOutBias) : Roles()));
  BEARING_ASSIGN_OR_RETURN(weights.attention_post_norm, LoadNorm(ParamRole::kAttentionPostNorm, layer));
  BEARING_ASSIGN_OR_RETURN(weights.mlp_norm, LoadNorm(ParamRole::kMlpNorm, layer));
  if (reader_.config().layers[layer].moe.num_experts > 0) {
    BEARING_ASSIGN_OR_RETURN(weights.mixture, LoadMixture(layer));
  } else {
    BEARING_ASSIGN_OR_RETURN(weights.mlp.gate_up, LoadLinear(kGateUp, layer, -1, kGateUpBias));
    BEARING_ASSIGN_OR_RETURN(weights.mlp.down, LoadLinear(kDown, layer, -1, adds_biases_ ? Roles(kDownBias) : Roles()));
  }
  BEARING_ASSIGN_OR_RETURN(weights.mlp_post_norm, LoadNorm(ParamRole::kMlpPostNorm, layer));
  return weights;
}

absl::StatusOr<WeightLoader::AttentionOut> WeightLoader::LoadAttentionOut(int64_t layer) const {
  AttentionOut out;
  BEARING_ASSIGN_OR_RETURN(const at::Tensor weight, Read(ParamRole::kAttentionOut, layer));
  out.weight = weight.to(dtype_).to(at::kFloat);
  BEARING_ASSIGN_OR_RETURN(out.post_norm, LoadNorm(ParamRole::kAttentionPostNorm, layer));
  return out;
}

absl::StatusOr<EndWeights> WeightLoader::LoadEnds() const {
  EndWeights weights;
  BEARING_ASSIGN_OR_RETURN(weights.embedding, Read(ParamRole::kEmbedding, -1));
  BEARING_ASSIGN_OR_RETURN(weights.final_norm, LoadNorm(ParamRole::kFinalNorm, -1));
  // A tied model's unembedding is its embedding, whether or not the file stores it a second time.
  at::Tensor unembedding = weights.embedding;
  if (!reader_.config().tied_embeddings) {
    BEARING_ASSIGN_OR_RETURN(unembedding, Read(ParamRole::kUnembedding, -1));
  }
  weights.unembedding = Linear(unembedding, at::Tensor(), dtype_, path_);
  return weights;
}

}  // namespace bearing::model
