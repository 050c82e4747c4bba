// The families that the decoder can run: one row of what transformers hard-codes in its modelling code and config.json
// therefore does not say. A new family is a new row (and name rows in tensor_names.cc where its tensors are called otherwise).
#ifndef BEARING_SHARDING_MODEL_FAMILY_H_
#define BEARING_SHARDING_MODEL_FAMILY_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "sharding/model_config.h"

namespace bearing::sharding {

// Does a projection have a bias? A key names the flag in config.json; "" with a fallback of its own is a constant.
struct BiasRule {
  std::string_view key = {};
  bool fallback = false;
};

// Which layers slide, where the file has no `layer_types`.
enum class WindowRule {
  kNone,
  kEveryLayer,       // `sliding_window`, if it is not null.
  kUseOnEveryLayer,  // The same under `use_sliding_window`.
  kUseFromLayer,     // Under `use_sliding_window`: layers from `max_window_layers` on.
  kUseEvenBelow,     // Under `use_sliding_window`: even layers below `max_window_layers`.
  kEven,             // Layers 0, 2, 4, ...
  kPattern,          // All but every `sliding_window_pattern`-th layer.
};

enum class MoeRule { kNone, kMixtral, kQwen };

struct ModelFamily {
  std::string_view model_type;    // Key `model_type` of config.json.
  std::string_view architecture;  // The one class in `architectures` with a language model head.
  NameStyle names = NameStyle::kLlama;
  BiasRule qkv_bias = {};
  BiasRule o_bias = {};
  BiasRule mlp_bias = {};
  bool qk_norm = false;
  bool post_norms = false;
  bool unit_offset_norm = false;
  bool scaled_embedding = false;  // By sqrt(d_model).
  bool softcaps = false;          // Reads `attn_logit_softcapping` and `final_logit_softcapping`.
  bool query_scalar = false;      // Reads `query_pre_attn_scalar`.
  bool partial_rotary = false;    // Reads `partial_rotary_factor`.
  bool local_rope = false;        // Sliding layers rotate by a table of their own.
  bool reads_layer_types = false;
  WindowRule windows = WindowRule::kNone;
  MoeRule moe = MoeRule::kNone;
  Activation activation = Activation::kSilu;

  // Class defaults for keys that a file leaves out; 0 = the key must be there (head_dim: hidden_size / heads).
  int64_t max_positions = 0;
  int64_t sliding_window = 0;
  int64_t max_window_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  double theta = 10000.0;
  double norm_eps = 1e-6;
  double attention_softcap = 0.0;
  double final_softcap = 0.0;
  bool tied_embeddings = false;
};

// nullptr for an unknown `model_type`.
const ModelFamily* FindModelFamily(std::string_view model_type);

// "llama, qwen2", for messages.
std::string SupportedModelTypes();

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_MODEL_FAMILY_H_
