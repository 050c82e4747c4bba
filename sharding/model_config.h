// What a model is, resolved from config.json: one LayerSpec a layer, no family name.
//
// ParseModelConfig takes the family's row (constants that transformers hard-codes), then the keys of the file, then checks.
// A key whose value changes the forward pass and is not supported is Unimplemented, naming the key. Both spellings are
// read: `rope_theta`, `torch_dtype` (transformers 4) and `rope_parameters`, `dtype`, `layer_types` (transformers 5).
#ifndef BEARING_SHARDING_MODEL_CONFIG_H_
#define BEARING_SHARDING_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/dtype.h"

namespace bearing::sharding {

enum class Activation { kSilu, kGeluTanh };

// RMSNorm: y = x / sqrt(mean(x^2) + eps) * w, computed in fp32, cast to the compute type before the multiplication with w.
struct NormSpec {
  double eps = 1e-6;
};

enum class RopeScaling { kNone, kLinear, kLlama3 };

// Rotary position embedding over the whole head (half-split layout, as transformers' rotate_half).
struct RopeSpec {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;        // llama3
  double high_freq_factor = 4.0;       // llama3
  int64_t original_max_positions = 0;  // llama3
};

struct AttentionSpec {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  bool qkv_bias = false;
  bool o_bias = false;
  double scale = 0.0;  // 1/sqrt(head_dim) unless the family says otherwise.
};

struct MlpSpec {
  int64_t intermediate_size = 0;
  Activation activation = Activation::kSilu;
  bool bias = false;
};

struct LayerSpec {
  AttentionSpec attention;
  MlpSpec mlp;
};

struct ModelConfig {
  // For names on disk and messages only; the decoder never reads it. E.g. "qwen2".
  std::string family;
  int64_t d_model = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  NormSpec norm;
  RopeSpec rope;
  std::vector<LayerSpec> layers;
  bool tied_embeddings = false;
  // Of the weights: what the config says or float32, and after CheckpointReader::Open what the embedding is stored in.
  DType dtype = DType::kBF16;
  // Token ids that end a generation: config.json, then generation_config.json when the caller merges it.
  std::vector<int64_t> eos_token_ids;

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
};

// `json` is the text of config.json, `source` its path for messages. InvalidArgument for malformed or missing keys,
// Unimplemented for an unknown architecture or an unsupported key.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view source);

// Reads `model_dir`/config.json and, when present, the eos ids of generation_config.json.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_MODEL_CONFIG_H_
