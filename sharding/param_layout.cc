#include "sharding/param_layout.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "absl/strings/str_join.h"
#include "sharding/concat.h"

namespace bearing::sharding {
namespace {

constexpr std::string_view kUnembeddingName = "lm_head.weight";

// Sizes that a shape is made of.
enum class Dim { kVocab, kModel, kHeads, kKvHeads, kMlp };

// Which part of the model must have a bias for the tensor to exist.
enum class Needs { kAlways, kQkvBias, kOBias, kMlpBias };

struct LayerRow {
  ParamRole role;
  std::string_view suffix;  // After "model.layers.<layer>.".
  std::array<std::optional<Dim>, 2> shape;
  int residual_axis;  // -1: does not write the residual stream.
  Needs needs;
};

// Tensors of one layer in the order of the forward pass, in the names of transformers' llama (which qwen2 shares).
constexpr std::array<LayerRow, 16> kLayerRows = {{
    {ParamRole::kInputNorm, "input_layernorm.weight", {Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kQuery, "self_attn.q_proj.weight", {Dim::kHeads, Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kQueryBias, "self_attn.q_proj.bias", {Dim::kHeads}, -1, Needs::kQkvBias},
    {ParamRole::kKey, "self_attn.k_proj.weight", {Dim::kKvHeads, Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kKeyBias, "self_attn.k_proj.bias", {Dim::kKvHeads}, -1, Needs::kQkvBias},
    {ParamRole::kValue, "self_attn.v_proj.weight", {Dim::kKvHeads, Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kValueBias, "self_attn.v_proj.bias", {Dim::kKvHeads}, -1, Needs::kQkvBias},
    {ParamRole::kAttentionOut, "self_attn.o_proj.weight", {Dim::kModel, Dim::kHeads}, 0, Needs::kAlways},
    {ParamRole::kAttentionOutBias, "self_attn.o_proj.bias", {Dim::kModel}, 0, Needs::kOBias},
    {ParamRole::kMlpNorm, "post_attention_layernorm.weight", {Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kGate, "mlp.gate_proj.weight", {Dim::kMlp, Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kGateBias, "mlp.gate_proj.bias", {Dim::kMlp}, -1, Needs::kMlpBias},
    {ParamRole::kUp, "mlp.up_proj.weight", {Dim::kMlp, Dim::kModel}, -1, Needs::kAlways},
    {ParamRole::kUpBias, "mlp.up_proj.bias", {Dim::kMlp}, -1, Needs::kMlpBias},
    {ParamRole::kDown, "mlp.down_proj.weight", {Dim::kModel, Dim::kMlp}, 0, Needs::kAlways},
    {ParamRole::kDownBias, "mlp.down_proj.bias", {Dim::kModel}, 0, Needs::kMlpBias},
}};

bool IsPresent(Needs needs, const LayerSpec& layer) {
  switch (needs) {
    case Needs::kAlways:
      return true;
    case Needs::kQkvBias:
      return layer.attention.qkv_bias;
    case Needs::kOBias:
      return layer.attention.o_bias;
    case Needs::kMlpBias:
      return layer.mlp.bias;
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
    case Dim::kMlp:
      return layer.mlp.intermediate_size;
  }
  return 0;
}

// The cut follows from the shape: every dimension but d_model is cut, and a tensor has at most one of those.
void SetCut(const std::array<std::optional<Dim>, 2>& shape, const LayerSpec& layer, ParamEntry* entry) {
  for (int axis = 0; axis < 2; ++axis) {
    const std::optional<Dim> dim = shape[static_cast<size_t>(axis)];
    if (!dim || *dim == Dim::kModel) continue;
    entry->cut_axis = axis;
    entry->cut_by = *dim == Dim::kVocab   ? CutBy::kVocab
                    : *dim == Dim::kHeads ? CutBy::kHeads
                    : *dim == Dim::kMlp   ? CutBy::kMlp
                                          : CutBy::kKvHeads;
    if (*dim == Dim::kHeads || *dim == Dim::kKvHeads) entry->cut_unit = layer.attention.head_dim;
  }
}

ParamEntry MakeEntry(ParamRole role, std::string name, const std::array<std::optional<Dim>, 2>& shape, int residual_axis,
                     int64_t layer_index, const LayerSpec& layer, const ModelConfig& config) {
  ParamEntry entry;
  entry.name = std::move(name);
  entry.role = role;
  entry.layer = layer_index;
  for (const std::optional<Dim> dim : shape) {
    if (dim) entry.shape.push_back(Size(*dim, config, layer));
  }
  SetCut(shape, layer, &entry);
  entry.writes_residual = residual_axis >= 0;
  entry.residual_axis = std::max(residual_axis, 0);
  return entry;
}

ParamEntry MakeUnembedding(const ModelConfig& config) {
  return MakeEntry(ParamRole::kUnembedding, std::string(kUnembeddingName), {Dim::kVocab, Dim::kModel}, -1, -1, LayerSpec{},
                   config);
}

// Tables of rotary frequencies that old versions of transformers saved; they follow from the config.
bool IsIgnoredBuffer(std::string_view name) { return name.ends_with(".rotary_emb.inv_freq"); }

absl::Status CheckTensor(const ParamEntry& want, const DiskTensor& got) {
  if (want.shape != got.shape) {
    return absl::FailedPreconditionError(Concat("tensor has another shape than the config asks for: tensor=", want.name,
                                                " want=[", absl::StrJoin(want.shape, ", "), "] got=[",
                                                absl::StrJoin(got.shape, ", "), "]"));
  }
  if (got.dtype != DType::kF32 && got.dtype != DType::kF16 && got.dtype != DType::kBF16) {
    return absl::FailedPreconditionError(
        Concat("tensor has another dtype than F32, F16 or BF16: tensor=", want.name, " got=", DTypeName(got.dtype)));
  }
  return absl::OkStatus();
}

}  // namespace

ParamLayout ParamLayout::FromConfig(const ModelConfig& config) {
  ParamLayout layout;
  std::vector<ParamEntry>& entries = layout.entries_;
  entries.push_back(MakeEntry(ParamRole::kEmbedding, "model.embed_tokens.weight", {Dim::kVocab, Dim::kModel},
                              /*residual_axis=*/1, -1, LayerSpec{}, config));
  for (int64_t index = 0; index < config.num_layers(); ++index) {
    const LayerSpec& layer = config.layers[static_cast<size_t>(index)];
    for (const LayerRow& row : kLayerRows) {
      if (!IsPresent(row.needs, layer)) continue;
      entries.push_back(MakeEntry(row.role, Concat("model.layers.", index, ".", row.suffix), row.shape, row.residual_axis,
                                  index, layer, config));
    }
  }
  entries.push_back(MakeEntry(ParamRole::kFinalNorm, "model.norm.weight", {Dim::kModel}, -1, -1, LayerSpec{}, config));
  if (!config.tied_embeddings) entries.push_back(MakeUnembedding(config));
  return layout;
}

absl::StatusOr<ParamLayout> ParamLayout::Match(const ModelConfig& config, absl::Span<const DiskTensor> on_disk) {
  ParamLayout layout = FromConfig(config);
  std::unordered_map<std::string_view, const DiskTensor*> found;
  for (const DiskTensor& tensor : on_disk) found.emplace(tensor.name, &tensor);
  if (config.tied_embeddings && found.contains(kUnembeddingName)) layout.entries_.push_back(MakeUnembedding(config));

  std::unordered_map<std::string_view, const ParamEntry*> wanted;
  for (const ParamEntry& entry : layout.entries_) {
    const auto it = found.find(entry.name);
    if (it == found.end()) {
      return absl::FailedPreconditionError(Concat("tensor is missing from the checkpoint: tensor=", entry.name));
    }
    if (absl::Status status = CheckTensor(entry, *it->second); !status.ok()) return status;
    wanted.emplace(entry.name, &entry);
  }
  for (const DiskTensor& tensor : on_disk) {
    if (!wanted.contains(tensor.name) && !IsIgnoredBuffer(tensor.name)) {
      return absl::FailedPreconditionError(
          Concat("tensor of the checkpoint has no place in a model of this config: tensor=", Escaped(tensor.name)));
    }
  }
  return layout;
}

const ParamEntry* ParamLayout::Find(ParamRole role, int64_t layer) const {
  for (const ParamEntry& entry : entries_) {
    if (entry.role == role && entry.layer == layer) return &entry;
  }
  return nullptr;
}

const ParamEntry* ParamLayout::FindByName(std::string_view name) const {
  for (const ParamEntry& entry : entries_) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace bearing::sharding
