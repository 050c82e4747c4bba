// Tables of the rotary position embedding (Su et al. 2021), with the scalings of transformers: linear, llama3, yarn (Peng et
// al. 2023), longrope (Ding et al. 2024).
#ifndef BEARING_WORKER_MODEL_ROPE_H_
#define BEARING_WORKER_MODEL_ROPE_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "sharding/model_config.h"

namespace bearing::model {

// Angles a position turns each pair of a head by: theta^(-2i/R), scaled, R = rotary_dim. [R/2] `is_long`: of a sequence of
// more than original_max_positions tokens (longrope).
std::vector<double> RopeFrequencies(const sharding::RopeSpec& spec, bool is_long);

struct RopeTable {
  // [positions, R/2] fp32, times the attention factor. Longrope: 2 * positions rows, those of long sequences behind the others.
  at::Tensor cos, sin;
  int64_t positions = 0;

  bool has_long_rows() const { return cos.size(0) > positions; }
};

RopeTable MakeRopeTable(const sharding::RopeSpec& spec, int64_t positions);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_ROPE_H_
