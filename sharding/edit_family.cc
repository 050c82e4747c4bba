#include "sharding/edit_family.h"

#include <array>

#include "sharding/concat.h"

namespace bearing::sharding {
namespace {

constexpr WriterRow kAttentionOut = {"self_attn.o_proj.weight", Component::kAttention, Orientation::kOutIn, "", true};
constexpr WriterRow kAttentionOutBias = {"self_attn.o_proj.bias", Component::kAttention, Orientation::kVector};
constexpr WriterRow kDense = {"mlp.down_proj.weight", Component::kMlp, Orientation::kOutIn};
constexpr WriterRow kDenseBias = {"mlp.down_proj.bias", Component::kMlp, Orientation::kVector};

constexpr WriterRow kPlainWriters[] = {kAttentionOut, kAttentionOutBias, kDense, kDenseBias};

constexpr WriterRow kOlmo2Writers[] = {
    {"self_attn.o_proj.weight", Component::kAttention, Orientation::kOutIn, "post_attention_layernorm.weight", true},
    {"self_attn.o_proj.bias", Component::kAttention, Orientation::kVector, "post_attention_layernorm.weight"},
    {"mlp.down_proj.weight", Component::kMlp, Orientation::kOutIn, "post_feedforward_layernorm.weight", true},
};

constexpr WriterRow kGlm4Writers[] = {
    {"self_attn.o_proj.weight", Component::kAttention, Orientation::kOutIn, "post_self_attn_layernorm.weight", true},
    {"mlp.down_proj.weight", Component::kMlp, Orientation::kOutIn, "post_mlp_layernorm.weight", true},
};

// One shared expert of DeepSeek and GLM is a dense MLP of their joint size.
constexpr WriterRow kDeepseekWriters[] = {
    kAttentionOut,
    kAttentionOutBias,
    kDense,
    {"mlp.experts.{E}.down_proj.weight", Component::kMlp, Orientation::kOutIn},
    {"mlp.shared_experts.down_proj.weight", Component::kMlp, Orientation::kOutIn},
};

constexpr WriterRow kPhimoeWriters[] = {
    kAttentionOut,
    kAttentionOutBias,
    {"block_sparse_moe.experts.{E}.w2.weight", Component::kMlp, Orientation::kOutIn},
};

constexpr WriterRow kGptOssWriters[] = {
    kAttentionOut,
    kAttentionOutBias,
    {"mlp.experts.down_proj", Component::kMlp, Orientation::kFusedInOut, "", true},
    {"mlp.experts.down_proj_bias", Component::kMlp, Orientation::kFusedVector, "", true},
};

constexpr WriterRow kLlama4Writers[] = {
    kAttentionOut,
    kAttentionOutBias,
    {"feed_forward.down_proj.weight", Component::kMlp, Orientation::kOutIn},
    {"feed_forward.experts.down_proj", Component::kMlp, Orientation::kFusedInOut},
    {"feed_forward.shared_expert.down_proj.weight", Component::kMlp, Orientation::kOutIn},
};

constexpr WriterRow kQwen3VlMoeWriters[] = {
    kAttentionOut,
    kAttentionOutBias,
    kDense,
    {"mlp.experts.down_proj", Component::kMlp, Orientation::kFusedEither},
};

constexpr WriterRow kLlama4Projector[] = {
    {"multi_modal_projector.linear_1.weight", Component::kProjector, Orientation::kOutIn}};

// The deep-stack mergers add to the residual stream behind the first layers.
constexpr WriterRow kQwen3VlProjector[] = {
    {"model.visual.merger.linear_fc2.weight", Component::kProjector, Orientation::kOutIn},
    {"model.visual.merger.linear_fc2.bias", Component::kProjector, Orientation::kVector},
    {"model.visual.deepstack_merger_list.{L}.linear_fc2.weight", Component::kProjector, Orientation::kOutIn},
    {"model.visual.deepstack_merger_list.{L}.linear_fc2.bias", Component::kProjector, Orientation::kVector}};

constexpr std::string_view kPlainReaders[] = {"input_layernorm.weight",  "post_attention_layernorm.weight",
                                              "self_attn.q_proj.",       "self_attn.k_proj.",
                                              "self_attn.v_proj.",       "self_attn.q_norm.weight",
                                              "self_attn.k_norm.weight", "self_attn.rotary_emb.inv_freq",
                                              "mlp.gate_proj.",          "mlp.up_proj."};
constexpr std::string_view kOlmo2Readers[] = {"post_attention_layernorm.weight",
                                              "post_feedforward_layernorm.weight",
                                              "self_attn.q_proj.",
                                              "self_attn.k_proj.",
                                              "self_attn.v_proj.",
                                              "self_attn.q_norm.weight",
                                              "self_attn.k_norm.weight",
                                              "self_attn.rotary_emb.inv_freq",
                                              "mlp.gate_proj.",
                                              "mlp.up_proj."};
constexpr std::string_view kGlm4Readers[] = {"input_layernorm.weight",
                                             "post_attention_layernorm.weight",
                                             "post_self_attn_layernorm.weight",
                                             "post_mlp_layernorm.weight",
                                             "self_attn.q_proj.",
                                             "self_attn.k_proj.",
                                             "self_attn.v_proj.",
                                             "self_attn.rotary_emb.inv_freq",
                                             "mlp.gate_up_proj."};
constexpr std::string_view kDeepseekReaders[] = {"input_layernorm.weight",
                                                 "post_attention_layernorm.weight",
                                                 "self_attn.q_proj.",
                                                 "self_attn.k_proj.",
                                                 "self_attn.v_proj.",
                                                 "self_attn.q_norm.weight",
                                                 "self_attn.k_norm.weight",
                                                 "self_attn.q_a_proj.",
                                                 "self_attn.q_a_layernorm.weight",
                                                 "self_attn.q_b_proj.",
                                                 "self_attn.kv_a_proj_with_mqa.",
                                                 "self_attn.kv_a_layernorm.weight",
                                                 "self_attn.kv_b_proj.",
                                                 "self_attn.rotary_emb.inv_freq",
                                                 "mlp.gate_proj.",
                                                 "mlp.up_proj.",
                                                 "mlp.gate.weight",
                                                 "mlp.gate.e_score_correction_bias",
                                                 "mlp.experts.{E}.gate_proj.",
                                                 "mlp.experts.{E}.up_proj.",
                                                 "mlp.shared_experts.gate_proj.",
                                                 "mlp.shared_experts.up_proj."};
constexpr std::string_view kPhimoeReaders[] = {"input_layernorm.",
                                               "post_attention_layernorm.",
                                               "self_attn.q_proj.",
                                               "self_attn.k_proj.",
                                               "self_attn.v_proj.",
                                               "self_attn.rotary_emb.inv_freq",
                                               "block_sparse_moe.gate.weight",
                                               "block_sparse_moe.experts.{E}.w1.weight",
                                               "block_sparse_moe.experts.{E}.w3.weight"};
constexpr std::string_view kGptOssReaders[] = {"input_layernorm.weight",   "post_attention_layernorm.weight",
                                               "self_attn.q_proj.",        "self_attn.k_proj.",
                                               "self_attn.v_proj.",        "self_attn.sinks",
                                               "mlp.router.weight",        "mlp.router.bias",
                                               "mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj_bias"};
constexpr std::string_view kLlama4Readers[] = {"input_layernorm.weight",
                                               "post_attention_layernorm.weight",
                                               "self_attn.q_proj.",
                                               "self_attn.k_proj.",
                                               "self_attn.v_proj.",
                                               "feed_forward.gate_proj.weight",
                                               "feed_forward.up_proj.weight",
                                               "feed_forward.router.weight",
                                               "feed_forward.experts.gate_up_proj",
                                               "feed_forward.shared_expert.gate_proj.weight",
                                               "feed_forward.shared_expert.up_proj.weight"};
constexpr std::string_view kQwen3VlMoeReaders[] = {
    "input_layernorm.weight",  "post_attention_layernorm.weight", "self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.",
    "self_attn.q_norm.weight", "self_attn.k_norm.weight",         "mlp.gate_proj.",    "mlp.up_proj.",      "mlp.gate.weight",
    "mlp.experts.gate_up_proj"};

constexpr std::string_view kLlama4OtherParts[] = {"vision_model.", "multi_modal_projector."};
constexpr std::string_view kQwen3VlOtherParts[] = {"model.visual."};

constexpr std::array<EditFamily, 12> kFamilies = {{
    {.model_type = "cohere2", .writers = kPlainWriters, .readers = kPlainReaders, .tied_default = true},
    {.model_type = "olmo2", .writers = kOlmo2Writers, .readers = kOlmo2Readers},
    {.model_type = "glm4", .writers = kGlm4Writers, .readers = kGlm4Readers},
    {.model_type = "glm4_moe",
     .writers = kDeepseekWriters,
     .readers = kDeepseekReaders,
     .experts_key = "n_routed_experts",
     .shared_key = "n_shared_experts",
     .next_layers_key = "num_nextn_predict_layers"},
    {.model_type = "granite",
     .writers = kPlainWriters,
     .readers = kPlainReaders,
     .residual_scale_key = "residual_multiplier",
     .embedding_scale_key = "embedding_multiplier"},
    {.model_type = "phimoe", .writers = kPhimoeWriters, .readers = kPhimoeReaders, .experts_key = "num_local_experts"},
    {.model_type = "deepseek_v2",
     .writers = kDeepseekWriters,
     .readers = kDeepseekReaders,
     .experts_key = "n_routed_experts",
     .shared_key = "n_shared_experts"},
    {.model_type = "deepseek_v3",
     .writers = kDeepseekWriters,
     .readers = kDeepseekReaders,
     .experts_key = "n_routed_experts",
     .shared_key = "n_shared_experts",
     .next_layers_key = "num_nextn_predict_layers"},
    {.model_type = "gpt_oss",
     .writers = kGptOssWriters,
     .readers = kGptOssReaders,
     .experts_key = "num_local_experts",
     .expert_size_key = "intermediate_size"},
    {.model_type = "llama4_text",
     .writers = kLlama4Writers,
     .readers = kLlama4Readers,
     .experts_key = "num_local_experts",
     .expert_size_key = "intermediate_size",
     .always_shared = true},
    {.model_type = "llama4",
     .body = "language_model.model.",
     .unembedding = "language_model.lm_head.weight",
     .has_text_config = true,
     .writers = kLlama4Writers,
     .projector = kLlama4Projector,
     .readers = kLlama4Readers,
     .other_parts = kLlama4OtherParts,
     .experts_key = "num_local_experts",
     .expert_size_key = "intermediate_size",
     .always_shared = true},
    {.model_type = "qwen3_vl_moe",
     .body = "model.language_model.",
     .has_text_config = true,
     .writers = kQwen3VlMoeWriters,
     .projector = kQwen3VlProjector,
     .readers = kQwen3VlMoeReaders,
     .other_parts = kQwen3VlOtherParts,
     .experts_key = "num_experts",
     .experts_key_2 = "num_local_experts",
     .expert_size_key = "moe_intermediate_size"},
}};

}  // namespace

const EditFamily* FindEditFamily(std::string_view model_type) {
  for (const EditFamily& family : kFamilies) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

std::string EditOnlyModelTypes() {
  std::string names;
  for (const EditFamily& family : kFamilies) names += Concat(names.empty() ? "" : ", ", family.model_type);
  return names;
}

}  // namespace bearing::sharding
