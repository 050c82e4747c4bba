#include "sharding/param_layout.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_join.h"
#include "sharding/concat.h"
#include "sharding/tensor_names.h"

namespace bearing::sharding {
namespace {

// Sizes that a shape is made of.
enum class Dim { kVocab, kModel, kHeads, kKvHeads, kHeadDim, kMlp, kExperts, kExpert, kShared, kOne };

// What a layer must have for the tensor to exist.
enum class Needs { kAlways, kQkvBias, kOBias, kQkNorm, kPostNorms, kDense, kMlpBias, kMoe, kShared };

using Shape = std::array<std::optional<Dim>, 2>;

struct LayerRow {
  ParamRole role;
  Shape shape;
  int residual_axis;  // -1: does not write the residual stream.
  Needs needs;
};

// Tensors of one layer in the order of the forward pass.
constexpr LayerRow kLayerRows[] = {
    {ParamRole::kInputNorm, {Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kQuery, {Dim::kHeads, Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kQueryBias, {Dim::kHeads}, -1, Needs::kQkvBias},
    {ParamRole::kKey, {Dim::kKvHeads, Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kKeyBias, {Dim::kKvHeads}, -1, Needs::kQkvBias},
    {ParamRole::kValue, {Dim::kKvHeads, Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kValueBias, {Dim::kKvHeads}, -1, Needs::kQkvBias},
    {ParamRole::kQueryNorm, {Dim::kHeadDim}, -1, Needs::kQkNorm},
    {ParamRole::kKeyNorm, {Dim::kHeadDim}, -1, Needs::kQkNorm},
    {ParamRole::kAttentionOut, {Dim::kModel, Dim::kHeads}, 0, Needs::kAlways},
    {ParamRole::kAttentionOutBias, {Dim::kModel}, 0, Needs::kOBias},
    {ParamRole::kAttentionPostNorm, {Dim::kModel}, -1, Needs::kPostNorms},
    {ParamRole::kMlpNorm, {Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kGate, {Dim::kMlp, Dim::kModel}, -1, Needs::kDense},
    {ParamRole::kGateBias, {Dim::kMlp}, -1, Needs::kMlpBias},
    {ParamRole::kUp, {Dim::kMlp, Dim::kModel}, -1, Needs::kDense},
    {ParamRole::kUpBias, {Dim::kMlp}, -1, Needs::kMlpBias},
    {ParamRole::kDown, {Dim::kModel, Dim::kMlp}, 0, Needs::kDense},
    {ParamRole::kDownBias, {Dim::kModel}, 0, Needs::kMlpBias},
    {ParamRole::kRouter, {Dim::kExperts, Dim::kModel}, -1, Needs::kMoe},
    {ParamRole::kSharedRouter, {Dim::kOne, Dim::kModel}, -1, Needs::kShared},
    {ParamRole::kSharedGate, {Dim::kShared, Dim::kModel}, -1, Needs::kShared},
    {ParamRole::kSharedUp, {Dim::kShared, Dim::kModel}, -1, Needs::kShared},
    {ParamRole::kSharedDown, {Dim::kModel, Dim::kShared}, 0, Needs::kShared},
    {ParamRole::kMlpPostNorm, {Dim::kModel}, -1, Needs::kPostNorms},
};

// Tensors of one expert.
constexpr LayerRow kExpertRows[] = {
    {ParamRole::kExpertGate, {Dim::kExpert, Dim::kModel}, -1, Needs::kMoe},
    {ParamRole::kExpertUp, {Dim::kExpert, Dim::kModel}, -1, Needs::kMoe},
    {ParamRole::kExpertDown, {Dim::kModel, Dim::kExpert}, 0, Needs::kMoe},
};

bool IsPresent(Needs needs, const LayerSpec& layer) {
  switch (needs) {
    case Needs::kAlways:
      return true;
    case Needs::kQkvBias:
      return layer.attention.qkv_bias;
    case Needs::kOBias:
      return layer.attention.o_bias;
    case Needs::kQkNorm:
      return layer.attention.qk_norm;
    case Needs::kPostNorms:
      return layer.post_norms;
    case Needs::kDense:
      return layer.moe.num_experts == 0;
    case Needs::kMlpBias:
      return layer.moe.num_experts == 0 && layer.mlp.bias;
    case Needs::kMoe:
      return layer.moe.num_experts > 0;
    case Needs::kShared:
      return layer.moe.shared_size > 0;
  }
  return false;
}

int64_t Size(Dim dim, const ModelConfig& config, const LayerSpec& layer) {
  switch (dim) {
    case Dim::kVocab:
      return config.vocab_size;
    case Dim::kModel:
      return config.d_model;
    case Dim::kHeads:
      return layer.attention.num_heads * layer.attention.head_dim;
    case Dim::kKvHeads:
      return layer.attention.num_kv_heads * layer.attention.head_dim;
    case Dim::kHeadDim:
      return layer.attention.head_dim;
    case Dim::kMlp:
      return layer.mlp.intermediate_size;
    case Dim::kExperts:
      return layer.moe.num_experts;
    case Dim::kExpert:
      return layer.moe.expert_size;
    case Dim::kShared:
      return layer.moe.shared_size;
    case Dim::kOne:
      return 1;
  }
  return 0;
}

CutBy CutOf(Dim dim) {
  switch (dim) {
    case Dim::kVocab:
      return CutBy::kVocab;
    case Dim::kHeads:
      return CutBy::kHeads;
    case Dim::kKvHeads:
      return CutBy::kKvHeads;
    case Dim::kMlp:
      return CutBy::kMlp;
    case Dim::kExpert:
      return CutBy::kExpert;
    case Dim::kShared:
      return CutBy::kSharedExpert;
    case Dim::kModel:
    case Dim::kHeadDim:
    case Dim::kExperts:  // Every rank routes every token.
    case Dim::kOne:
      return CutBy::kNone;
  }
  return CutBy::kNone;
}

// The cut follows from the shape: a tensor has at most one dimension that is cut.
void SetCut(const Shape& shape, const LayerSpec& layer, ParamEntry* entry) {
  for (int axis = 0; axis < 2; ++axis) {
    const std::optional<Dim> dim = shape[static_cast<size_t>(axis)];
    if (!dim || CutOf(*dim) == CutBy::kNone) continue;
    entry->cut_axis = axis;
    entry->cut_by = CutOf(*dim);
    if (*dim == Dim::kHeads || *dim == Dim::kKvHeads) entry->cut_unit = layer.attention.head_dim;
  }
}

ParamEntry MakeEntry(const ModelConfig& config, const NamePrefix& prefix, const LayerSpec& layer, const LayerRow& row,
                     int64_t layer_index, int64_t expert) {
  ParamEntry entry;
  entry.name = TensorName(config.names, prefix, row.role, layer_index, expert);
  entry.role = row.role;
  entry.layer = layer_index;
  entry.expert = expert;
  for (const std::optional<Dim> dim : row.shape) {
    if (dim) entry.shape.push_back(Size(*dim, config, layer));
  }
  entry.disk_rows = entry.shape[0];
  SetCut(row.shape, layer, &entry);
  entry.writes_residual = row.residual_axis >= 0;
  entry.residual_axis = std::max(row.residual_axis, 0);
  if (entry.writes_residual && layer.post_norms) {
    const bool attention = row.role == ParamRole::kAttentionOut || row.role == ParamRole::kAttentionOutBias;
    entry.norm_behind = attention ? ParamRole::kAttentionPostNorm : ParamRole::kMlpPostNorm;
  }
  return entry;
}

std::vector<int64_t> DiskShape(const ParamEntry& entry) {
  std::vector<int64_t> shape = entry.shape;
  shape[0] = entry.disk_rows;
  return shape;
}

absl::Status CheckTensor(const ParamEntry& want, const DiskTensor& got) {
  if (DiskShape(want) != got.shape) {
    return absl::FailedPreconditionError(Concat("tensor has another shape than the config asks for: tensor=", want.name,
                                                " want=[", absl::StrJoin(DiskShape(want), ", "), "] got=[",
                                                absl::StrJoin(got.shape, ", "), "]"));
  }
  if (got.dtype != DType::kF32 && got.dtype != DType::kF16 && got.dtype != DType::kBF16) {
    return absl::FailedPreconditionError(
        Concat("tensor has another dtype than F32, F16 or BF16: tensor=", want.name, " got=", DTypeName(got.dtype)));
  }
  return absl::OkStatus();
}

constexpr LayerRow kEmbeddingRow = {ParamRole::kEmbedding, {Dim::kVocab, Dim::kModel}, /*residual_axis=*/1, Needs::kAlways};
constexpr LayerRow kFinalNormRow = {ParamRole::kFinalNorm, {Dim::kModel}, -1, Needs::kAlways};
constexpr LayerRow kUnembeddingRow = {ParamRole::kUnembedding, {Dim::kVocab, Dim::kModel}, -1, Needs::kAlways};

}  // namespace

void ParamLayout::Add(ParamEntry entry) {
  const size_t index = entries_.size();
  by_role_.emplace(std::tuple(entry.role, entry.layer, entry.expert), index);
  const auto [first, is_new] = by_name_.emplace(entry.name, index);
  if (!is_new) {
    // A part behind those that share the tensor.
    entry.disk_offset = entries_[first->second].disk_rows;
    entry.disk_rows = entry.disk_offset + entry.shape[0];
    for (size_t i = first->second; i < index; ++i) {
      if (entries_[i].name == entry.name) entries_[i].disk_rows = entry.disk_rows;
    }
  }
  entries_.push_back(std::move(entry));
}

template <typename IsThere>
bool ParamLayout::AddAll(const ModelConfig& config, const NamePrefix& prefix, const IsThere& is_there) {
  unembedding_name_ = prefix.unembedding;
  const auto add = [&](const LayerSpec& layer, const LayerRow& row, int64_t index, int64_t expert) {
    ParamEntry entry = MakeEntry(config, prefix, layer, row, index, expert);
    if (!is_there(entry)) return false;
    Add(std::move(entry));
    return true;
  };
  const LayerSpec none;
  if (!add(none, kEmbeddingRow, -1, -1)) return false;
  for (int64_t index = 0; index < config.num_layers(); ++index) {
    const LayerSpec& layer = config.layers[static_cast<size_t>(index)];
    for (const LayerRow& row : kLayerRows) {
      if (IsPresent(row.needs, layer) && !add(layer, row, index, -1)) return false;
    }
    for (int64_t expert = 0; expert < layer.moe.num_experts; ++expert) {
      for (const LayerRow& row : kExpertRows) {
        if (!add(layer, row, index, expert)) return false;
      }
    }
  }
  if (!add(none, kFinalNormRow, -1, -1)) return false;
  return config.tied_embeddings || add(none, kUnembeddingRow, -1, -1);
}

ParamLayout ParamLayout::FromConfig(const ModelConfig& config) {
  ParamLayout layout;
  layout.AddAll(config, NamePrefixes(config).front(), [](const ParamEntry&) { return true; });
  return layout;
}

absl::StatusOr<ParamLayout> ParamLayout::Match(const ModelConfig& config, absl::Span<const DiskTensor> on_disk) {
  std::unordered_map<std::string_view, const DiskTensor*> found;
  for (const DiskTensor& tensor : on_disk) found.emplace(tensor.name, &tensor);
  const std::vector<NamePrefix> prefixes = NamePrefixes(config);
  const auto named = std::find_if(prefixes.begin(), prefixes.end(), [&](const NamePrefix& p) {
    return found.contains(TensorName(config.names, p, ParamRole::kEmbedding, -1, -1));
  });
  const NamePrefix& prefix = named != prefixes.end() ? *named : prefixes.front();
  // At the first that is missing, before more are made: a config may ask for very many.
  std::string missing;
  const auto is_there = [&](const ParamEntry& entry) {
    if (found.contains(entry.name)) return true;
    missing = entry.name;
    return false;
  };
  ParamLayout layout;
  if (!layout.AddAll(config, prefix, is_there)) {
    return absl::FailedPreconditionError(Concat("tensor is missing from the checkpoint: tensor=", missing));
  }
  if (config.tied_embeddings && found.contains(layout.unembedding_name_)) {
    layout.Add(MakeEntry(config, prefix, LayerSpec{}, kUnembeddingRow, -1, -1));
  }
  for (const ParamEntry& entry : layout.entries_) {
    if (absl::Status status = CheckTensor(entry, *found.find(entry.name)->second); !status.ok()) return status;
  }
  for (const DiskTensor& tensor : on_disk) {
    if (!layout.by_name_.contains(tensor.name) && !IsForeignTensor(config, tensor.name)) {
      return absl::FailedPreconditionError(
          Concat("tensor of the checkpoint has no place in a model of this config: tensor=", Escaped(tensor.name)));
    }
  }
  return layout;
}

const ParamEntry* ParamLayout::Find(ParamRole role, int64_t layer, int64_t expert) const {
  const auto found = by_role_.find(std::tuple(role, layer, expert));
  return found == by_role_.end() ? nullptr : &entries_[found->second];
}

const ParamEntry* ParamLayout::FindByName(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

}  // namespace bearing::sharding
