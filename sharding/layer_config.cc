#include "sharding/layer_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

std::optional<int64_t> Default(int64_t value) { return value > 0 ? std::optional<int64_t>(value) : std::nullopt; }

absl::StatusOr<bool> ParseBias(const JsonFields& config, const BiasRule& rule) {
  if (rule.key.empty()) return rule.fallback;
  return config.Bool(rule.key, rule.fallback);
}

absl::StatusOr<AttentionSpec> ParseAttention(const JsonFields& config, const ModelFamily& family, int64_t d_model) {
  AttentionSpec attention;
  BEARING_ASSIGN_OR_RETURN(attention.num_heads, config.Int("num_attention_heads", 1, kMaxWidth, Default(family.num_heads)));
  BEARING_ASSIGN_OR_RETURN(
      attention.num_kv_heads,
      config.Int("num_key_value_heads", 1, kMaxWidth, family.num_kv_heads > 0 ? family.num_kv_heads : attention.num_heads));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    return config.Invalid("num_key_value_heads", Concat("want a divisor of num_attention_heads=", attention.num_heads));
  }
  const bool has_head_dim = config.Has("head_dim") || family.head_dim > 0;
  if (!has_head_dim && d_model % attention.num_heads != 0) {
    return config.Invalid("num_attention_heads", Concat("want a divisor of hidden_size=", d_model, " without head_dim"));
  }
  const int64_t default_dim = family.head_dim > 0 ? family.head_dim : d_model / attention.num_heads;
  BEARING_ASSIGN_OR_RETURN(attention.head_dim, config.Int("head_dim", 1, kMaxWidth, default_dim));
  if (attention.head_dim % 2 != 0) {
    return config.Invalid(config.Has("head_dim") ? "head_dim" : "hidden_size",
                          Concat("want an even head size: head_dim=", attention.head_dim));
  }
  if (attention.num_heads * attention.head_dim > kMaxWidth) {
    return config.Invalid("num_attention_heads", Concat("heads * head_dim is above ", kMaxWidth));
  }
  BEARING_ASSIGN_OR_RETURN(attention.qkv_bias, ParseBias(config, family.qkv_bias));
  BEARING_ASSIGN_OR_RETURN(attention.o_bias, ParseBias(config, family.o_bias));
  attention.qk_norm = family.qk_norm;
  auto scalar = static_cast<double>(attention.head_dim);
  if (family.query_scalar) {
    BEARING_ASSIGN_OR_RETURN(scalar, config.Number("query_pre_attn_scalar", 256.0));
    if (scalar <= 0.0) return config.Invalid("query_pre_attn_scalar", "want a number above 0");
  }
  attention.scale = 1.0 / std::sqrt(scalar);
  if (family.softcaps && config.IsNull("attn_logit_softcapping")) return attention;
  if (family.softcaps) {
    BEARING_ASSIGN_OR_RETURN(attention.logit_softcap, config.Number("attn_logit_softcapping", family.attention_softcap));
    if (attention.logit_softcap < 0.0) return config.Invalid("attn_logit_softcapping", "want a number that is not negative");
    // transformers' Gemma 3 reads the key and does not use it: which of both a checkpoint means is not known.
    if (attention.logit_softcap > 0.0 && family.qk_norm) {
      return config.Unsupported("attn_logit_softcapping", "a cap on attention scores together with query and key norms");
    }
  }
  return attention;
}

// Does layer `index` slide, where the file does not list it?
absl::StatusOr<std::vector<bool>> SlidingByRule(const JsonFields& config, const ModelFamily& family, int64_t layers) {
  std::vector<bool> sliding(static_cast<size_t>(layers), false);
  const auto set = [&](auto&& rule) {
    for (int64_t i = 0; i < layers; ++i) sliding[static_cast<size_t>(i)] = rule(i);
  };
  BEARING_ASSIGN_OR_RETURN(const bool use, config.Bool("use_sliding_window", false));
  BEARING_ASSIGN_OR_RETURN(const int64_t first, config.Int("max_window_layers", 0, kMaxPositions, family.max_window_layers));
  switch (family.windows) {
    case WindowRule::kNone:
      break;
    case WindowRule::kEveryLayer:
      set([](int64_t) { return true; });
      break;
    case WindowRule::kUseOnEveryLayer:
      set([use](int64_t) { return use; });
      break;
    case WindowRule::kUseFromLayer:
      set([use, first](int64_t i) { return use && i >= first; });
      break;
    case WindowRule::kUseEvenBelow:
      set([use, first](int64_t i) { return use && i % 2 == 0 && i < first; });
      break;
    case WindowRule::kEven:
      set([](int64_t i) { return i % 2 == 0; });
      break;
    case WindowRule::kPattern: {
      const std::string_view key = config.Has("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
      BEARING_ASSIGN_OR_RETURN(const int64_t pattern, config.Int(key, 1, kMaxLayers, 6));
      set([pattern](int64_t i) { return (i + 1) % pattern != 0; });
      break;
    }
  }
  return sliding;
}

absl::StatusOr<std::vector<bool>> SlidingLayers(const JsonFields& config, const ModelFamily& family, int64_t layers) {
  const nlohmann::json* types = config.Find("layer_types");
  if (types == nullptr) return SlidingByRule(config, family, layers);
  if (!types->is_array() || static_cast<int64_t>(types->size()) != layers) {
    return config.Invalid("layer_types", Concat("want a list of ", layers, " names"));
  }
  std::vector<bool> sliding;
  sliding.reserve(types->size());
  for (const nlohmann::json& type : *types) {
    if (type != "full_attention" && !(type == "sliding_attention" && family.reads_layer_types)) {
      return config.Unsupported(
          "layer_types", Concat("attention other than full_attention", family.reads_layer_types ? " or sliding_attention" : "",
                                ": got=", type.dump()));
    }
    sliding.push_back(type == "sliding_attention");
  }
  // A family that does not read the list slides as its rule says.
  return family.reads_layer_types ? sliding : SlidingByRule(config, family, layers);
}

absl::Status SetWindows(const JsonFields& config, const ModelFamily& family, std::vector<LayerSpec>* layers) {
  BEARING_ASSIGN_OR_RETURN(const std::vector<bool> sliding,
                           SlidingLayers(config, family, static_cast<int64_t>(layers->size())));
  if (std::find(sliding.begin(), sliding.end(), true) == sliding.end()) return absl::OkStatus();
  // A null window is none at all; a file without the key has the class default.
  int64_t window = 0;
  if (!config.IsNull("sliding_window") && (config.Has("sliding_window") || family.sliding_window > 0)) {
    BEARING_ASSIGN_OR_RETURN(window, config.Int("sliding_window", 1, kMaxPositions, family.sliding_window));
  }
  for (size_t i = 0; i < layers->size(); ++i) {
    if (!sliding[i]) continue;
    (*layers)[i].attention.sliding_window = window;
    if (family.local_rope) (*layers)[i].attention.rope = 1;
  }
  return absl::OkStatus();
}

absl::StatusOr<MoeSpec> ParseMoe(const JsonFields& config, const ModelFamily& family) {
  MoeSpec moe;
  const std::string_view count_key = config.Has("num_local_experts") ? "num_local_experts" : "num_experts";
  BEARING_ASSIGN_OR_RETURN(moe.num_experts, config.Int(count_key, 1, kMaxExperts));
  BEARING_ASSIGN_OR_RETURN(moe.top_k, config.Int("num_experts_per_tok", 1, moe.num_experts));
  if (family.moe == MoeRule::kMixtral) {
    BEARING_ASSIGN_OR_RETURN(moe.expert_size, config.Int("intermediate_size", 1, kMaxWidth));
    moe.renormalize = true;
    return moe;
  }
  BEARING_ASSIGN_OR_RETURN(moe.expert_size, config.Int("moe_intermediate_size", 1, kMaxWidth));
  BEARING_ASSIGN_OR_RETURN(moe.renormalize, config.Bool("norm_topk_prob", false));
  if (family.model_type == "qwen2_moe") {
    BEARING_ASSIGN_OR_RETURN(moe.shared_size, config.Int("shared_expert_intermediate_size", 1, kMaxWidth));
  }
  return moe;
}

// Layers whose MLP is dense although the family has mixtures.
absl::StatusOr<std::vector<bool>> DenseLayers(const JsonFields& config, const ModelFamily& family, int64_t layers) {
  std::vector<bool> dense(static_cast<size_t>(layers), family.moe == MoeRule::kNone);
  if (family.moe != MoeRule::kQwen) return dense;
  BEARING_ASSIGN_OR_RETURN(const int64_t step, config.Int("decoder_sparse_step", 1, kMaxLayers, 1));
  for (int64_t i = 0; i < layers; ++i) dense[static_cast<size_t>(i)] = (i + 1) % step != 0;
  const nlohmann::json* only = config.Find("mlp_only_layers");
  if (only == nullptr) return dense;
  if (!only->is_array()) return config.Invalid("mlp_only_layers", "want a list of layers");
  for (const nlohmann::json& layer : *only) {
    if (!layer.is_number_unsigned()) return config.Invalid("mlp_only_layers", "want a list of layers");
    const auto index = layer.get<uint64_t>();
    if (index < dense.size()) dense[index] = true;
  }
  return dense;
}

}  // namespace

absl::StatusOr<std::vector<LayerSpec>> ParseLayers(const JsonFields& config, const ModelFamily& family, int64_t d_model) {
  BEARING_ASSIGN_OR_RETURN(const int64_t count, config.Int("num_hidden_layers", 1, kMaxLayers));
  LayerSpec dense;
  BEARING_ASSIGN_OR_RETURN(dense.attention, ParseAttention(config, family, d_model));
  dense.post_norms = family.post_norms;
  dense.mlp.activation = family.activation;
  LayerSpec sparse = dense;
  BEARING_ASSIGN_OR_RETURN(const std::vector<bool> is_dense, DenseLayers(config, family, count));
  if (family.moe != MoeRule::kNone) {
    BEARING_ASSIGN_OR_RETURN(sparse.moe, ParseMoe(config, family));
    // A plan lists every expert; a checkpoint with more tensors would not be read either.
    if (count * sparse.moe.num_experts > kMaxExpertsInAll) {
      return config.Invalid("num_hidden_layers", Concat("want at most ", kMaxExpertsInAll, " experts in all layers"));
    }
  }
  if (std::find(is_dense.begin(), is_dense.end(), true) != is_dense.end()) {
    BEARING_ASSIGN_OR_RETURN(dense.mlp.intermediate_size, config.Int("intermediate_size", 1, kMaxWidth));
    BEARING_ASSIGN_OR_RETURN(dense.mlp.bias, ParseBias(config, family.mlp_bias));
  }
  std::vector<LayerSpec> layers;
  layers.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    layers.push_back(is_dense[static_cast<size_t>(i)] ? dense : sparse);
  }
  BEARING_RETURN_IF_ERROR(SetWindows(config, family, &layers));
  return layers;
}

}  // namespace bearing::sharding
