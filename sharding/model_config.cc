#include "sharding/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "sharding/concat.h"
#include "sharding/edit_family.h"
#include "sharding/json_text.h"
#include "sharding/layer_config.h"
#include "sharding/model_family.h"
#include "sharding/posix_file.h"
#include "sharding/qwen1_config.h"
#include "sharding/rope_config.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

constexpr std::string_view kWrapperType = "gemma3";

constexpr int64_t kMaxVocab = int64_t{1} << 26;

absl::StatusOr<const ModelFamily*> ParseFamily(const JsonFields& config) {
  BEARING_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type"));
  const ModelFamily* family = FindModelFamily(model_type);
  if (family == nullptr) {
    const bool can_edit = FindEditFamily(model_type) != nullptr;
    return config.Unsupported("model_type", Concat("model family (supported: ", SupportedModelTypes(), ")",
                                                   can_edit ? "; `bearing edit` can edit it, but nothing here runs it" : ""));
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

// The key of the activation and its value must be the one that the family computes. Old Gemma files say "gelu" and mean the
// tanh form, which the published model was trained with.
absl::Status CheckActivation(const JsonFields& config, Activation activation) {
  const std::string_view want = activation == Activation::kSilu ? "silu" : "gelu_pytorch_tanh";
  for (const std::string_view key : {"hidden_activation", "hidden_act"}) {
    if (!config.Has(key)) continue;
    BEARING_ASSIGN_OR_RETURN(const std::string act, config.String(key));
    if (act == want || (activation == Activation::kGeluTanh && act == "gelu" && key == "hidden_act")) return absl::OkStatus();
    return config.Unsupported(key, Concat("activation (supported for this family: ", want, ")"));
  }
  return absl::OkStatus();
}

// Keys that change the computation or the storage in a way that nothing here implements.
absl::Status RefuseUnsupported(const JsonFields& config, const ModelFamily& family) {
  for (const std::string_view key : {"quantization_config", "compression_config"}) {
    if (config.Has(key)) return config.Unsupported(key, "quantized weights");
  }
  // Qwen 1 is model code of its own, and known.
  BEARING_ASSIGN_OR_RETURN(const std::optional<JsonFields> auto_map, config.Object("auto_map"));
  if (auto_map && auto_map->Has("AutoModelForCausalLM") && family.names != NameStyle::kQwen1 &&
      family.names != NameStyle::kPhi3) {
    return auto_map->Unsupported("AutoModelForCausalLM", "model code of its own");
  }
  BEARING_ASSIGN_OR_RETURN(const bool bidirectional, config.Bool("use_bidirectional_attention", false));
  if (bidirectional) return config.Unsupported("use_bidirectional_attention", "attention that is not causal");
  return CheckActivation(config, family.activation);
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

absl::StatusOr<ModelConfig> ParseTextModel(const JsonFields& config, const ModelFamily& family) {
  ModelConfig model;
  model.family = std::string(family.model_type);
  model.names = family.names;
  BEARING_ASSIGN_OR_RETURN(model.d_model, config.Int("hidden_size", 1, kMaxWidth));
  BEARING_ASSIGN_OR_RETURN(
      model.vocab_size,
      config.Int("vocab_size", 1, kMaxVocab, family.vocab_size > 0 ? std::optional(family.vocab_size) : std::nullopt));
  BEARING_ASSIGN_OR_RETURN(model.max_positions, config.Int("max_position_embeddings", 1, kMaxPositions, family.max_positions));
  BEARING_ASSIGN_OR_RETURN(model.norm.eps, config.Number("rms_norm_eps", family.norm_eps));
  if (model.norm.eps < 0.0) return config.Invalid("rms_norm_eps", "want a number that is not negative");
  model.norm.unit_offset = family.unit_offset_norm;
  BEARING_ASSIGN_OR_RETURN(model.layers, ParseLayers(config, family, model.d_model));
  BEARING_ASSIGN_OR_RETURN(model.ropes,
                           ParseRopes(config, family, model.layers.front().attention.head_dim, model.max_positions));
  if (family.scaled_embedding) model.embedding_scale = std::sqrt(static_cast<double>(model.d_model));
  if (family.softcaps && !config.IsNull("final_logit_softcapping")) {
    BEARING_ASSIGN_OR_RETURN(model.final_logit_softcap, config.Number("final_logit_softcapping", family.final_softcap));
    if (model.final_logit_softcap < 0.0) return config.Invalid("final_logit_softcapping", "want a number that is not negative");
  }
  BEARING_ASSIGN_OR_RETURN(model.tied_embeddings, config.Bool("tie_word_embeddings", family.tied_embeddings));
  BEARING_ASSIGN_OR_RETURN(model.dtype, ParseDType(config));
  BEARING_RETURN_IF_ERROR(AppendEosIds(config, &model.eos_token_ids));
  return model;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view source) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(json, source));
  return ReadModelConfig(document, source);
}

absl::StatusOr<ModelConfig> ReadModelConfig(const nlohmann::json& document, std::string_view source) {
  const JsonFields file(document, source);
  BEARING_ASSIGN_OR_RETURN(const ModelFamily* family, ParseFamily(file));
  BEARING_RETURN_IF_ERROR(RefuseUnsupported(file, *family));
  if (family->names == NameStyle::kQwen1) {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json translated, TranslateQwen1Config(file));
    return ParseTextModel(JsonFields(translated, source), *family);
  }
  if (family->model_type != kWrapperType) return ParseTextModel(file, *family);

  // What the text model leaves out, the wrapper says.
  BEARING_ASSIGN_OR_RETURN(const std::optional<JsonFields> text, file.Object("text_config"));
  if (!text) return file.Invalid("text_config", "want the config of the text model");
  BEARING_ASSIGN_OR_RETURN(const ModelFamily* const text_family, ParseFamily(*text));
  if (!text_family->local_rope) return text->Unsupported("model_type", "text model in this wrapper (supported: gemma3_text)");
  BEARING_RETURN_IF_ERROR(RefuseUnsupported(*text, *text_family));
  BEARING_ASSIGN_OR_RETURN(ModelConfig model, ParseTextModel(*text, *text_family));
  model.wrapped = true;
  BEARING_ASSIGN_OR_RETURN(model.tied_embeddings, file.Bool("tie_word_embeddings", model.tied_embeddings));
  if (file.Has("dtype") || file.Has("torch_dtype")) {
    BEARING_ASSIGN_OR_RETURN(model.dtype, ParseDType(file));
  }
  model.eos_token_ids.clear();
  BEARING_RETURN_IF_ERROR(AppendEosIds(file, &model.eos_token_ids));
  BEARING_RETURN_IF_ERROR(AppendEosIds(*text, &model.eos_token_ids));
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
