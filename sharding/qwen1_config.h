// Qwen 1's config.json in the keys of llama. Private to model_config.cc.
//
// Its own modelling code names things otherwise, and lengthens the context at run time (dynamic NTK, log-n attention) beyond
// `seq_length`; up to that length both change nothing, so the length becomes the largest number of positions.
#ifndef BEARING_SHARDING_QWEN1_CONFIG_H_
#define BEARING_SHARDING_QWEN1_CONFIG_H_

#include "absl/status/statusor.h"
#include "sharding/json_text.h"

namespace bearing::sharding {

// Unimplemented or InvalidArgument, naming the key as the file spells it.
absl::StatusOr<nlohmann::json> TranslateQwen1Config(const JsonFields& config);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_QWEN1_CONFIG_H_
