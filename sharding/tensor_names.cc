#include "sharding/tensor_names.h"

#include <algorithm>
#include <array>

#include "sharding/concat.h"

namespace bearing::sharding {
namespace {

struct NameRow {
  ParamRole role;
  std::string_view suffix;  // Behind the body's prefix, in a layer behind "layers.N."; {E} is the expert.
};

constexpr NameRow kLlamaNames[] = {
    {ParamRole::kEmbedding, "embed_tokens.weight"},
    {ParamRole::kFinalNorm, "norm.weight"},
    {ParamRole::kInputNorm, "input_layernorm.weight"},
    {ParamRole::kQuery, "self_attn.q_proj.weight"},
    {ParamRole::kQueryBias, "self_attn.q_proj.bias"},
    {ParamRole::kKey, "self_attn.k_proj.weight"},
    {ParamRole::kKeyBias, "self_attn.k_proj.bias"},
    {ParamRole::kValue, "self_attn.v_proj.weight"},
    {ParamRole::kValueBias, "self_attn.v_proj.bias"},
    {ParamRole::kQueryNorm, "self_attn.q_norm.weight"},
    {ParamRole::kKeyNorm, "self_attn.k_norm.weight"},
    {ParamRole::kAttentionOut, "self_attn.o_proj.weight"},
    {ParamRole::kAttentionOutBias, "self_attn.o_proj.bias"},
    {ParamRole::kMlpNorm, "post_attention_layernorm.weight"},
    {ParamRole::kGate, "mlp.gate_proj.weight"},
    {ParamRole::kGateBias, "mlp.gate_proj.bias"},
    {ParamRole::kUp, "mlp.up_proj.weight"},
    {ParamRole::kUpBias, "mlp.up_proj.bias"},
    {ParamRole::kDown, "mlp.down_proj.weight"},
    {ParamRole::kDownBias, "mlp.down_proj.bias"},
};

constexpr NameRow kQwen1Names[] = {
    {ParamRole::kEmbedding, "wte.weight"},
    {ParamRole::kFinalNorm, "ln_f.weight"},
    {ParamRole::kInputNorm, "ln_1.weight"},
    {ParamRole::kQuery, "attn.c_attn.weight"},
    {ParamRole::kKey, "attn.c_attn.weight"},
    {ParamRole::kValue, "attn.c_attn.weight"},
    {ParamRole::kQueryBias, "attn.c_attn.bias"},
    {ParamRole::kKeyBias, "attn.c_attn.bias"},
    {ParamRole::kValueBias, "attn.c_attn.bias"},
    {ParamRole::kAttentionOut, "attn.c_proj.weight"},
    {ParamRole::kMlpNorm, "ln_2.weight"},
    // h = w1(x) * silu(w2(x)).
    {ParamRole::kGate, "mlp.w2.weight"},
    {ParamRole::kUp, "mlp.w1.weight"},
    {ParamRole::kDown, "mlp.c_proj.weight"},
};

// The same name, another place: behind attention here, before the MLP in llama.
constexpr NameRow kGemma2Names[] = {
    {ParamRole::kAttentionPostNorm, "post_attention_layernorm.weight"},
    {ParamRole::kMlpNorm, "pre_feedforward_layernorm.weight"},
    {ParamRole::kMlpPostNorm, "post_feedforward_layernorm.weight"},
};

constexpr NameRow kPhi3Names[] = {
    {ParamRole::kQuery, "self_attn.qkv_proj.weight"}, {ParamRole::kKey, "self_attn.qkv_proj.weight"},
    {ParamRole::kValue, "self_attn.qkv_proj.weight"}, {ParamRole::kGate, "mlp.gate_up_proj.weight"},
    {ParamRole::kUp, "mlp.gate_up_proj.weight"},
};

constexpr NameRow kMixtralNames[] = {
    {ParamRole::kRouter, "block_sparse_moe.gate.weight"},
    {ParamRole::kExpertGate, "block_sparse_moe.experts.{E}.w1.weight"},
    {ParamRole::kExpertUp, "block_sparse_moe.experts.{E}.w3.weight"},
    {ParamRole::kExpertDown, "block_sparse_moe.experts.{E}.w2.weight"},
};

constexpr NameRow kQwenMoeNames[] = {
    {ParamRole::kRouter, "mlp.gate.weight"},
    {ParamRole::kExpertGate, "mlp.experts.{E}.gate_proj.weight"},
    {ParamRole::kExpertUp, "mlp.experts.{E}.up_proj.weight"},
    {ParamRole::kExpertDown, "mlp.experts.{E}.down_proj.weight"},
    {ParamRole::kSharedRouter, "mlp.shared_expert_gate.weight"},
    {ParamRole::kSharedGate, "mlp.shared_expert.gate_proj.weight"},
    {ParamRole::kSharedUp, "mlp.shared_expert.up_proj.weight"},
    {ParamRole::kSharedDown, "mlp.shared_expert.down_proj.weight"},
};

absl::Span<const NameRow> RowsOf(NameStyle style) {
  switch (style) {
    case NameStyle::kLlama:
      return {};
    case NameStyle::kQwen1:
      return kQwen1Names;
    case NameStyle::kGemma2:
      return kGemma2Names;
    case NameStyle::kPhi3:
      return kPhi3Names;
    case NameStyle::kMixtral:
      return kMixtralNames;
    case NameStyle::kQwenMoe:
      return kQwenMoeNames;
  }
  return {};
}

std::string_view SuffixOf(NameStyle style, ParamRole role) {
  for (const absl::Span<const NameRow> rows : {RowsOf(style), absl::Span<const NameRow>(kLlamaNames)}) {
    const auto* const row = std::find_if(rows.begin(), rows.end(), [role](const NameRow& r) { return r.role == role; });
    if (row != rows.end()) return row->suffix;
  }
  return "";
}

}  // namespace

std::vector<NamePrefix> NamePrefixes(const ModelConfig& config) {
  if (config.wrapped) {
    return {{"language_model.model.", "language_model.lm_head.weight"}, {"model.language_model.", "lm_head.weight"}};
  }
  if (config.names == NameStyle::kQwen1) return {{"transformer.", "lm_head.weight"}};
  return {{"model.", "lm_head.weight"}};
}

std::string TensorName(NameStyle style, const NamePrefix& prefix, ParamRole role, int64_t layer, int64_t expert) {
  if (role == ParamRole::kUnembedding) return std::string(prefix.unembedding);
  std::string suffix(SuffixOf(style, role));
  if (expert >= 0) {
    constexpr std::string_view kExpertMark = "{E}";
    suffix.replace(suffix.find(kExpertMark), kExpertMark.size(), std::to_string(expert));
  }
  if (layer < 0) return Concat(prefix.body, suffix);
  return Concat(prefix.body, style == NameStyle::kQwen1 ? "h." : "layers.", layer, ".", suffix);
}

bool IsForeignTensor(const ModelConfig& config, std::string_view name) {
  // Tables of rotary frequencies and masks that old versions saved.
  if (name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.masked_bias") || name.ends_with(".attn.bias")) return true;
  if (!config.wrapped) return false;
  constexpr std::array<std::string_view, 4> kOtherParts = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                                           "model.multi_modal_projector."};
  return std::any_of(kOtherParts.begin(), kOtherParts.end(),
                     [name](std::string_view part) { return name.starts_with(part); });
}

}  // namespace bearing::sharding
