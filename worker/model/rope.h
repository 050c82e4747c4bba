// Tables of the rotary position embedding (Su et al. 2021), with the llama3 and linear scalings of transformers.
#ifndef BEARING_WORKER_MODEL_ROPE_H_
#define BEARING_WORKER_MODEL_ROPE_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "sharding/model_config.h"

namespace bearing::model {

// Angles a position turns each pair of a head by: theta^(-2i/E), scaled. [E/2]
std::vector<double> RopeFrequencies(const sharding::RopeSpec& spec, int64_t head_dim);

struct RopeTable {
  at::Tensor cos, sin;  // [positions, E/2] fp32.
};

RopeTable MakeRopeTable(const sharding::RopeSpec& spec, int64_t head_dim, int64_t positions);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_ROPE_H_
