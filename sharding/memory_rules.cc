#include "sharding/memory_rules.h"

#include <algorithm>

namespace bearing::sharding {

int64_t TokenBudget(const ModelConfig& config, int64_t memory_bytes) {
  // fp32 bytes that a token needs at the widest point of a block: residual, norm, write, gate and up, their product.
  int64_t widest = 1;
  for (const LayerSpec& layer : config.layers) {
    const int64_t mlp = std::max(layer.mlp.intermediate_size, layer.moe.top_k * layer.moe.expert_size + layer.moe.shared_size);
    const int64_t heads = layer.attention.num_heads + 2 * layer.attention.num_kv_heads;
    widest = std::max(widest, 4 * (4 * config.d_model + 3 * mlp + 2 * heads * layer.attention.head_dim));
  }
  return std::clamp<int64_t>(memory_bytes / widest, 64, 4096);
}

int64_t StreamTokens(const ModelConfig& config, int64_t memory_bytes) {
  return std::clamp<int64_t>(memory_bytes / (4 * config.d_model), 4096, int64_t{1} << 22);
}

}  // namespace bearing::sharding
