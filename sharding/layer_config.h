// The layers' part of config.json: attention, windows, MLP and mixtures, one LayerSpec a layer. Private to model_config.cc.
#ifndef BEARING_SHARDING_LAYER_CONFIG_H_
#define BEARING_SHARDING_LAYER_CONFIG_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/json_text.h"
#include "sharding/model_config.h"
#include "sharding/model_family.h"

namespace bearing::sharding {

// Far above any real model, and small enough that no size computed from them overflows.
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxWidth = int64_t{1} << 22;
inline constexpr int64_t kMaxExperts = 4096;
inline constexpr int64_t kMaxExpertsInAll = int64_t{1} << 18;  // Of all layers.
inline constexpr int64_t kMaxPositions = int64_t{1} << 40;

absl::StatusOr<std::vector<LayerSpec>> ParseLayers(const JsonFields& config, const ModelFamily& family, int64_t d_model);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_LAYER_CONFIG_H_
