#include "sharding/model_family.h"

#include <array>

#include "sharding/concat.h"

namespace bearing::sharding {
namespace {

constexpr std::array<ModelFamily, 2> kFamilies = {{
    // Llama 1 to 3, Yi, SmolLM2 and others that say `"model_type": "llama"`.
    {.model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .qkv_bias = BiasRule::kFromConfig,
     .o_bias = BiasRule::kFromConfig,
     .mlp_bias = BiasRule::kFromConfig,
     .reads_sliding_window = false,
     .max_positions = 2048,
     .sliding_window = 0,
     .max_window_layers = 0},
    // Qwen 2 and 2.5.
    {.model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .qkv_bias = BiasRule::kAlways,
     .o_bias = BiasRule::kNever,
     .mlp_bias = BiasRule::kNever,
     .reads_sliding_window = true,
     .max_positions = 32768,
     .sliding_window = 4096,
     .max_window_layers = 28},
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
