// The rotary embedding's part of config.json, in the spelling of transformers 4 (`rope_theta`, `rope_scaling`) or 5
// (`rope_parameters`). Private to model_config.cc.
#ifndef BEARING_SHARDING_ROPE_CONFIG_H_
#define BEARING_SHARDING_ROPE_CONFIG_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/json_text.h"
#include "sharding/model_config.h"
#include "sharding/model_family.h"

namespace bearing::sharding {

// The table of all layers, or, in a family with a local table, that of the full layers and that of the sliding ones.
// Unimplemented for a kind of scaling that is unknown, and for a partial rotation in a family that has none.
absl::StatusOr<std::vector<RopeSpec>> ParseRopes(const JsonFields& config, const ModelFamily& family, int64_t head_dim,
                                                 int64_t max_positions);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_ROPE_CONFIG_H_
