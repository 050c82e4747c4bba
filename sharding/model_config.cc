#include "sharding/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "sharding/concat.h"
#include "sharding/json_text.h"
#include "sharding/model_family.h"
#include "sharding/posix_file.h"
#include "sharding/rope_config.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

// Far above any real model, and small enough that no size computed from them overflows.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxWidth = int64_t{1} << 22;
constexpr int64_t kMaxVocab = int64_t{1} << 26;
constexpr int64_t kMaxPositions = int64_t{1} << 40;

constexpr int64_t kMaxConfigBytes = 16 << 20;

absl::StatusOr<const ModelFamily*> ParseFamily(const JsonFields& config) {
  BEARING_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type"));
  const ModelFamily* family = FindModelFamily(model_type);
  if (family == nullptr) {
    return config.Unsupported("model_type", Concat("model family (supported: ", SupportedModelTypes(), ")"));
  }
  const nlohmann::json* architectures = config.Find("architectures");
  if (architectures == nullptr) return family;
  if (!architectures->is_array() || architectures->empty()) return config.Invalid("architectures", "want a list of names");
  for (const nlohmann::json& name : *architectures) {
    if (name != family->architecture) {
      return config.Unsupported("architectures",
                                Concat("architecture (supported for ", model_type, ": ", family->architecture, ")"));
    }
  }
  return family;
}

// Keys that change the computation or the storage in a way that nothing here implements.
absl::Status RefuseUnsupported(const JsonFields& config) {
  for (const std::string_view key : {"quantization_config", "compression_config"}) {
    if (config.Has(key)) return config.Unsupported(key, "quantized weights");
  }
  BEARING_ASSIGN_OR_RETURN(const std::optional<JsonFields> auto_map, config.Object("auto_map"));
  if (auto_map && auto_map->Has("AutoModelForCausalLM")) {
    return auto_map->Unsupported("AutoModelForCausalLM", "model code of its own");
  }
  BEARING_ASSIGN_OR_RETURN(const std::string act, config.String("hidden_act", "silu"));
  if (act != "silu") return config.Unsupported("hidden_act", "activation (supported: silu)");
  return absl::OkStatus();
}

absl::Status RefuseSlidingWindow(const JsonFields& config, const ModelFamily& family, int64_t layers, int64_t max_positions) {
  const nlohmann::json* types = config.Find("layer_types");
  if (types != nullptr) {
    if (!types->is_array() || static_cast<int64_t>(types->size()) != layers) {
      return config.Invalid("layer_types", Concat("want a list of ", layers, " names"));
    }
    for (const nlohmann::json& type : *types) {
      if (type != "full_attention") {
        return config.Unsupported("layer_types", Concat("attention other than full_attention: got=", type.dump()));
      }
    }
    return absl::OkStatus();
  }
  if (!family.reads_sliding_window) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const bool use, config.Bool("use_sliding_window", false));
  if (!use) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const int64_t window, config.Int("sliding_window", 0, kMaxPositions, family.sliding_window));
  BEARING_ASSIGN_OR_RETURN(const int64_t first, config.Int("max_window_layers", 0, kMaxPositions, family.max_window_layers));
  // Layers from `first` on slide; a window as long as the longest text cuts nothing.
  if (first >= layers || window >= max_positions) return absl::OkStatus();
  return config.Unsupported("use_sliding_window",
                            Concat("sliding-window attention (layers ", first, " to ", layers - 1, ", window ", window, ")"));
}

absl::StatusOr<bool> ParseBias(const JsonFields& config, BiasRule rule, std::string_view key) {
  if (rule == BiasRule::kFromConfig) return config.Bool(key, false);
  return rule == BiasRule::kAlways;
}

absl::StatusOr<LayerSpec> ParseLayer(const JsonFields& config, const ModelFamily& family, int64_t d_model) {
  LayerSpec layer;
  AttentionSpec& attention = layer.attention;
  BEARING_ASSIGN_OR_RETURN(attention.num_heads, config.Int("num_attention_heads", 1, kMaxWidth));
  BEARING_ASSIGN_OR_RETURN(attention.num_kv_heads, config.Int("num_key_value_heads", 1, kMaxWidth, attention.num_heads));
  if (attention.num_heads % attention.num_kv_heads != 0) {
    return config.Invalid("num_key_value_heads", Concat("want a divisor of num_attention_heads=", attention.num_heads));
  }
  if (!config.Has("head_dim") && d_model % attention.num_heads != 0) {
    return config.Invalid("num_attention_heads", Concat("want a divisor of hidden_size=", d_model, " without head_dim"));
  }
  BEARING_ASSIGN_OR_RETURN(attention.head_dim, config.Int("head_dim", 1, kMaxWidth, d_model / attention.num_heads));
  if (attention.head_dim % 2 != 0) {
    return config.Invalid(config.Has("head_dim") ? "head_dim" : "hidden_size",
                          Concat("want an even head size: head_dim=", attention.head_dim));
  }
  if (attention.num_heads * attention.head_dim > kMaxWidth) {
    return config.Invalid("num_attention_heads", Concat("heads * head_dim is above ", kMaxWidth));
  }
  BEARING_ASSIGN_OR_RETURN(attention.qkv_bias, ParseBias(config, family.qkv_bias, "attention_bias"));
  BEARING_ASSIGN_OR_RETURN(attention.o_bias, ParseBias(config, family.o_bias, "attention_bias"));
  attention.scale = 1.0 / std::sqrt(static_cast<double>(attention.head_dim));
  BEARING_ASSIGN_OR_RETURN(layer.mlp.intermediate_size, config.Int("intermediate_size", 1, kMaxWidth));
  BEARING_ASSIGN_OR_RETURN(layer.mlp.bias, ParseBias(config, family.mlp_bias, "mlp_bias"));
  return layer;
}

absl::StatusOr<DType> ParseDType(const JsonFields& config) {
  const std::string_view key = config.Has("dtype") ? "dtype" : "torch_dtype";
  BEARING_ASSIGN_OR_RETURN(const std::string name, config.String(key, "float32"));
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float16") return DType::kF16;
  if (name == "float32") return DType::kF32;
  return config.Unsupported(key, "weight type (supported: bfloat16, float16, float32)");
}

// One id, a list of ids, or nothing; ids that are known already are left out.
absl::Status AppendEosIds(const JsonFields& config, std::vector<int64_t>* ids) {
  const nlohmann::json* value = config.Find("eos_token_id");
  if (value == nullptr) return absl::OkStatus();
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  for (const nlohmann::json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kMaxVocab)) {
      return config.Invalid("eos_token_id", "want a token id or a list of them");
    }
    const int64_t token = id.get<int64_t>();
    if (std::find(ids->begin(), ids->end(), token) == ids->end()) ids->push_back(token);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view source) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(json, source));
  const JsonFields config(document, source);
  BEARING_ASSIGN_OR_RETURN(const ModelFamily* const family, ParseFamily(config));
  BEARING_RETURN_IF_ERROR(RefuseUnsupported(config));

  ModelConfig model;
  model.family = std::string(family->model_type);
  BEARING_ASSIGN_OR_RETURN(model.d_model, config.Int("hidden_size", 1, kMaxWidth));
  BEARING_ASSIGN_OR_RETURN(model.vocab_size, config.Int("vocab_size", 1, kMaxVocab));
  BEARING_ASSIGN_OR_RETURN(model.max_positions, config.Int("max_position_embeddings", 1, kMaxPositions, family->max_positions));
  BEARING_ASSIGN_OR_RETURN(model.norm.eps, config.Number("rms_norm_eps", model.norm.eps));
  if (model.norm.eps < 0.0) return config.Invalid("rms_norm_eps", "want a number that is not negative");
  BEARING_ASSIGN_OR_RETURN(model.rope, ParseRope(config, model.max_positions));
  BEARING_ASSIGN_OR_RETURN(const int64_t layers, config.Int("num_hidden_layers", 1, kMaxLayers));
  BEARING_RETURN_IF_ERROR(RefuseSlidingWindow(config, *family, layers, model.max_positions));
  BEARING_ASSIGN_OR_RETURN(const LayerSpec layer, ParseLayer(config, *family, model.d_model));
  model.layers.assign(static_cast<size_t>(layers), layer);
  BEARING_ASSIGN_OR_RETURN(model.tied_embeddings, config.Bool("tie_word_embeddings", false));
  BEARING_ASSIGN_OR_RETURN(model.dtype, ParseDType(config));
  BEARING_RETURN_IF_ERROR(AppendEosIds(config, &model.eos_token_ids));
  return model;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  const std::string path = Concat(model_dir, "/config.json");
  BEARING_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kMaxConfigBytes));
  BEARING_ASSIGN_OR_RETURN(ModelConfig model, ParseModelConfig(text, path));

  const std::string generation_path = Concat(model_dir, "/generation_config.json");
  const absl::StatusOr<std::string> generation = ReadWholeFile(generation_path, kMaxConfigBytes);
  if (absl::IsNotFound(generation.status())) return model;
  BEARING_RETURN_IF_ERROR(generation.status());
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(*generation, generation_path));
  BEARING_RETURN_IF_ERROR(AppendEosIds(JsonFields(document, generation_path), &model.eos_token_ids));
  return model;
}

}  // namespace bearing::sharding
