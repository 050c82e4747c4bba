// The families that the decoder can run: one row of what transformers hard-codes in its modelling code and config.json
// therefore does not say. A new family is a new row (and name rows in param_layout.cc where its tensors are called otherwise).
#ifndef BEARING_SHARDING_MODEL_FAMILY_H_
#define BEARING_SHARDING_MODEL_FAMILY_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace bearing::sharding {

enum class BiasRule { kNever, kAlways, kFromConfig };

struct ModelFamily {
  std::string_view model_type;    // Key `model_type` of config.json.
  std::string_view architecture;  // The one class in `architectures` with a language model head.
  BiasRule qkv_bias;              // kFromConfig: key `attention_bias`.
  BiasRule o_bias;                // kFromConfig: key `attention_bias`.
  BiasRule mlp_bias;              // kFromConfig: key `mlp_bias`.
  bool reads_sliding_window;      // Does the family act on `use_sliding_window`?
  // Class defaults for keys that old config files leave out.
  int64_t max_positions;
  int64_t sliding_window;
  int64_t max_window_layers;
};

// nullptr for an unknown `model_type`.
const ModelFamily* FindModelFamily(std::string_view model_type);

// "llama, qwen2", for messages.
std::string SupportedModelTypes();

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_MODEL_FAMILY_H_
