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
#include "nlohmann/json_fwd.hpp"
#include "sharding/dtype.h"

namespace bearing::sharding {

enum class Activation { kSilu, kGeluTanh };

// RMSNorm: y = x / sqrt(mean(x^2) + eps) * gain, computed in fp32.
struct NormSpec {
  double eps = 1e-6;
  // false (Llama): cast to the compute type, then times w. true (Gemma): times (1 + w) in fp32, then cast.
  bool unit_offset = false;
};

// kDynamic and kLongRope depend on the length of the sequence. Dynamic changes nothing up to max_positions, and longer ones are
// refused. LongRope has two sets of frequencies (RopeSpec).
enum class RopeScaling { kNone, kLinear, kDynamic, kLlama3, kYarn, kLongRope };

// Rotary position embedding of the first `rotary_dim` elements of a head (half-split layout, as transformers' rotate_half).
struct RopeSpec {
  double theta = 10000.0;
  int64_t rotary_dim = 0;  // Even; head_dim unless the family rotates a part.
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double attention_factor = 1.0;       // cos and sin are multiplied with it (yarn, longrope).
  double low_freq_factor = 1.0;        // llama3
  double high_freq_factor = 4.0;       // llama3
  double beta_fast = 32.0;             // yarn
  double beta_slow = 1.0;              // yarn
  bool truncate = true;                // yarn: round the ends of the ramp to whole dimensions
  int64_t original_max_positions = 0;  // llama3, yarn, longrope
  // longrope, [rotary_dim / 2] each: what the frequencies are divided by in sequences of at most / of more than
  // original_max_positions.
  std::vector<double> short_factor;
  std::vector<double> long_factor;
};

struct AttentionSpec {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  bool qkv_bias = false;
  bool o_bias = false;
  bool qk_norm = false;        // RMSNorm of each query and key head, before the rotation.
  double scale = 0.0;          // 1/sqrt(head_dim) unless the family says otherwise.
  double logit_softcap = 0.0;  // s <- c tanh(s / c); 0 = off.
  int64_t sliding_window = 0;  // Keys a query sees, itself included; 0 = all before it.
  int rope = 0;                // Index into ModelConfig::ropes.
};

struct MlpSpec {
  int64_t intermediate_size = 0;  // 0 in a layer whose MLP is a mixture.
  Activation activation = Activation::kSilu;
  bool bias = false;
};

// Mixture of experts: p = softmax(x R^T) in fp32, the top_k experts weighted by their p.
struct MoeSpec {
  int64_t num_experts = 0;  // 0 = the layer has a dense MLP.
  int64_t top_k = 0;
  int64_t expert_size = 0;   // Columns of one expert.
  int64_t shared_size = 0;   // Columns of the expert that every token takes, times sigmoid(x g^T); 0 = none.
  bool renormalize = false;  // The top_k weights sum to 1.
};

struct LayerSpec {
  AttentionSpec attention;
  MlpSpec mlp;  // Its activation also holds for the experts.
  MoeSpec moe;
  // RMSNorm of what attention and MLP give, before it is added to the residual stream.
  bool post_norms = false;
};

// How tensors are called on disk (tensor_names.h).
enum class NameStyle { kLlama, kQwen1, kGemma2, kPhi3, kMixtral, kQwenMoe };

struct ModelConfig {
  // For names on disk and messages only; the decoder never reads it. E.g. "qwen2".
  std::string family;
  NameStyle names = NameStyle::kLlama;
  // The text model inside a multimodal wrapper: its tensors have a prefix, and those of other parts are left alone.
  bool wrapped = false;
  int64_t d_model = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  NormSpec norm;
  std::vector<RopeSpec> ropes;  // At least one.
  std::vector<LayerSpec> layers;
  double embedding_scale = 1.0;      // The embedding's output is multiplied with it, rounded to the compute type.
  double final_logit_softcap = 0.0;  // logits <- c tanh(logits / c); 0 = off.
  bool tied_embeddings = false;
  // Of the weights: what the config says or float32, and after CheckpointReader::Open what the embedding is stored in.
  DType dtype = DType::kBF16;
  // Token ids that end a generation: config.json, then generation_config.json when the caller merges it.
  std::vector<int64_t> eos_token_ids;

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
};

inline constexpr int64_t kMaxConfigBytes = 16 << 20;

// `json` is the text of config.json, `source` its path for messages. InvalidArgument for malformed or missing keys,
// Unimplemented for an unknown architecture or an unsupported key.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view source);

// The same of a document that is parsed already (json_text.h).
absl::StatusOr<ModelConfig> ReadModelConfig(const nlohmann::json& document, std::string_view source);

// Reads `model_dir`/config.json and, when present, the eos ids of generation_config.json.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_MODEL_CONFIG_H_
