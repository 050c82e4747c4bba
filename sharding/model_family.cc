#include "sharding/model_family.h"

#include <array>

#include "sharding/concat.h"

namespace bearing::sharding {
namespace {

constexpr BiasRule kAttentionBias = {.key = "attention_bias"};

// Constants and defaults as in transformers 5 (configuration_*.py, modeling_*.py); qwen as in its own modelling code.
constexpr std::array<ModelFamily, 13> kFamilies = {{
    // Llama 1 to 3, Yi, SmolLM2, R1 distills and others that say `"model_type": "llama"`.
    {.model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .qkv_bias = kAttentionBias,
     .o_bias = kAttentionBias,
     .mlp_bias = {.key = "mlp_bias"},
     .max_positions = 2048},
    {.model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .windows = WindowRule::kEveryLayer,
     .max_positions = 131072,
     .sliding_window = 4096},
    // Qwen 1; its keys are translated before they are read (qwen1_config.h).
    {.model_type = "qwen", .architecture = "QWenLMHeadModel", .names = NameStyle::kQwen1, .qkv_bias = {.fallback = true}},
    // Qwen 2 and 2.5.
    {.model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .qkv_bias = {.fallback = true},
     .reads_layer_types = true,
     .windows = WindowRule::kUseFromLayer,
     .max_positions = 32768,
     .sliding_window = 4096,
     .max_window_layers = 28},
    {.model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .qkv_bias = kAttentionBias,
     .o_bias = kAttentionBias,
     .qk_norm = true,
     .reads_layer_types = true,
     .windows = WindowRule::kUseFromLayer,
     .max_positions = 32768,
     .sliding_window = 4096,
     .max_window_layers = 28,
     .head_dim = 128},
    {.model_type = "gemma",
     .architecture = "GemmaForCausalLM",
     .qkv_bias = kAttentionBias,
     .o_bias = kAttentionBias,
     .unit_offset_norm = true,
     .scaled_embedding = true,
     .activation = Activation::kGeluTanh,
     .max_positions = 8192,
     .head_dim = 256,
     .tied_embeddings = true},
    {.model_type = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     .names = NameStyle::kGemma2,
     .qkv_bias = kAttentionBias,
     .o_bias = kAttentionBias,
     .post_norms = true,
     .unit_offset_norm = true,
     .scaled_embedding = true,
     .softcaps = true,
     .query_scalar = true,
     .reads_layer_types = true,
     .windows = WindowRule::kEven,
     .activation = Activation::kGeluTanh,
     .max_positions = 8192,
     .sliding_window = 4096,
     .head_dim = 256,
     .attention_softcap = 50.0,
     .final_softcap = 30.0,
     .tied_embeddings = true},
    {.model_type = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     .names = NameStyle::kGemma2,
     .qkv_bias = kAttentionBias,
     .o_bias = kAttentionBias,
     .qk_norm = true,
     .post_norms = true,
     .unit_offset_norm = true,
     .scaled_embedding = true,
     .softcaps = true,
     .query_scalar = true,
     .local_rope = true,
     .reads_layer_types = true,
     .windows = WindowRule::kPattern,
     .activation = Activation::kGeluTanh,
     .max_positions = 131072,
     .sliding_window = 4096,
     .num_heads = 8,
     .num_kv_heads = 4,
     .head_dim = 256,
     .vocab_size = 262208,
     .theta = 1000000.0,
     .tied_embeddings = true},
    // Gemma 3 with images: its text model is a gemma3_text under `text_config`.
    {.model_type = "gemma3", .architecture = "Gemma3ForConditionalGeneration", .tied_embeddings = true},
    {.model_type = "phi3",
     .architecture = "Phi3ForCausalLM",
     .names = NameStyle::kPhi3,
     .partial_rotary = true,
     .windows = WindowRule::kEveryLayer,
     .max_positions = 4096,
     .norm_eps = 1e-5},
    {.model_type = "mixtral",
     .architecture = "MixtralForCausalLM",
     .names = NameStyle::kMixtral,
     .windows = WindowRule::kEveryLayer,
     .moe = MoeRule::kMixtral,
     .max_positions = 131072,
     .theta = 1000000.0,
     .norm_eps = 1e-5},
    {.model_type = "qwen2_moe",
     .architecture = "Qwen2MoeForCausalLM",
     .names = NameStyle::kQwenMoe,
     .qkv_bias = {.key = "qkv_bias", .fallback = true},
     .reads_layer_types = true,
     .windows = WindowRule::kUseEvenBelow,
     .moe = MoeRule::kQwen,
     .max_positions = 32768,
     .sliding_window = 4096,
     .max_window_layers = 28},
    {.model_type = "qwen3_moe",
     .architecture = "Qwen3MoeForCausalLM",
     .names = NameStyle::kQwenMoe,
     .qkv_bias = kAttentionBias,
     .o_bias = kAttentionBias,
     .qk_norm = true,
     .windows = WindowRule::kUseOnEveryLayer,
     .moe = MoeRule::kQwen,
     .max_positions = 32768,
     .sliding_window = 4096},
}};

}  // namespace

const ModelFamily* FindModelFamily(std::string_view model_type) {
  for (const ModelFamily& family : kFamilies) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

std::string SupportedModelTypes() {
  std::string names;
  for (const ModelFamily& family : kFamilies) names += Concat(names.empty() ? "" : ", ", family.model_type);
  return names;
}

}  // namespace bearing::sharding
