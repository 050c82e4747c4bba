#include "sharding/qwen1_config.h"

#include "sharding/concat.h"
#include "sharding/layer_config.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {

absl::StatusOr<nlohmann::json> TranslateQwen1Config(const JsonFields& config) {
  nlohmann::json translated = nlohmann::json::object();
  const auto copy_int = [&](std::string_view from, std::string_view to, std::optional<int64_t> fallback = {}) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(translated[std::string(to)], config.Int(from, 1, int64_t{1} << 40, fallback));
    return absl::OkStatus();
  };
  BEARING_RETURN_IF_ERROR(copy_int("hidden_size", "hidden_size"));
  BEARING_RETURN_IF_ERROR(copy_int("vocab_size", "vocab_size"));
  BEARING_RETURN_IF_ERROR(copy_int("num_hidden_layers", "num_hidden_layers"));
  BEARING_RETURN_IF_ERROR(copy_int("num_attention_heads", "num_attention_heads"));
  BEARING_RETURN_IF_ERROR(copy_int("seq_length", "max_position_embeddings"));
  if (config.Has("kv_channels")) BEARING_RETURN_IF_ERROR(copy_int("kv_channels", "head_dim"));
  // Counts both halves of the gated MLP.
  BEARING_ASSIGN_OR_RETURN(const int64_t both, config.Int("intermediate_size", 2, 2 * kMaxWidth));
  if (both % 2 != 0) return config.Invalid("intermediate_size", "want an even number (both halves of the gated MLP)");
  translated["intermediate_size"] = both / 2;
  BEARING_ASSIGN_OR_RETURN(translated["rms_norm_eps"], config.Number("layer_norm_epsilon", 1e-6));
  BEARING_ASSIGN_OR_RETURN(translated["rope_theta"], config.Number("rotary_emb_base", 10000.0));
  BEARING_ASSIGN_OR_RETURN(translated["tie_word_embeddings"], config.Bool("tie_word_embeddings", false));
  BEARING_ASSIGN_OR_RETURN(const bool scaled, config.Bool("scale_attn_weights", true));
  if (!scaled) return config.Unsupported("scale_attn_weights", "attention without scaling");
  BEARING_ASSIGN_OR_RETURN(const double rotated, config.Number("rotary_pct", 1.0));
  if (rotated != 1.0) return config.Unsupported("rotary_pct", "rotary embedding over a part of the head");
  BEARING_ASSIGN_OR_RETURN(const bool no_bias, config.Bool("no_bias", true));
  if (!no_bias) return config.Unsupported("no_bias", "biases other than that of c_attn");
  // The type of the weights is said by flags; without one it is what the tensors are stored in.
  BEARING_ASSIGN_OR_RETURN(const bool fp16, config.Bool("fp16", false));
  BEARING_ASSIGN_OR_RETURN(const bool fp32, config.Bool("fp32", false));
  translated["dtype"] = fp16 ? "float16" : fp32 ? "float32" : "bfloat16";
  for (const std::string_view key : {"architectures", "eos_token_id", "quantization_config"}) {
    if (const nlohmann::json* value = config.Find(key); value != nullptr) translated[std::string(key)] = *value;
  }
  return translated;
}

}  // namespace bearing::sharding
