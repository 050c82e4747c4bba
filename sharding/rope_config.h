// The rotary embedding's part of config.json, in the spelling of transformers 4 (`rope_theta`, `rope_scaling`) or 5
// (`rope_parameters`). Private to model_config.cc.
#ifndef BEARING_SHARDING_ROPE_CONFIG_H_
#define BEARING_SHARDING_ROPE_CONFIG_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "sharding/json_text.h"
#include "sharding/model_config.h"

namespace bearing::sharding {

// Unimplemented for a kind of scaling other than none, linear and llama3, and for a rotation of a part of the head.
absl::StatusOr<RopeSpec> ParseRope(const JsonFields& config, int64_t max_positions);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_ROPE_CONFIG_H_
