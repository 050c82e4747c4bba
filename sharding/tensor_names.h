// What tensors are called on disk: one row a role, in the names of transformers' llama, and the rows in which a style differs.
//
// Two roles with one name share a tensor: their parts are stacked along its first axis in the order of the roles (qkv, gate
// and up).
#ifndef BEARING_SHARDING_TENSOR_NAMES_H_
#define BEARING_SHARDING_TENSOR_NAMES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sharding/model_config.h"
#include "sharding/param_layout.h"

namespace bearing::sharding {

// Prefixes that a model's tensors may have; checkpoints of a multimodal model come in two spellings. The first is the one
// that names are made with when there is no checkpoint to look at.
struct NamePrefix {
  std::string_view body;         // Before "embed_tokens.weight", "layers.", "norm.weight".
  std::string_view unembedding;  // The whole name.
};
std::vector<NamePrefix> NamePrefixes(const ModelConfig& config);

// Name of a tensor; layer and expert are -1 where they do not apply.
std::string TensorName(NameStyle style, const NamePrefix& prefix, ParamRole role, int64_t layer, int64_t expert);

// Tensors that are left alone: buffers that follow from the config, and the other parts of a multimodal model.
bool IsForeignTensor(const ModelConfig& config, std::string_view name);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_TENSOR_NAMES_H_
