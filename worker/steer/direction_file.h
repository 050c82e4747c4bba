// direction.safetensors: `direction` [d_model] of unit norm and `mean_difference` [d_model], fp32, with metadata. A file with
// `direction` alone is accepted wherever a direction is read.
#ifndef BEARING_WORKER_STEER_DIRECTION_FILE_H_
#define BEARING_WORKER_STEER_DIRECTION_FILE_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bearing::steer {

struct Direction {
  at::Tensor unit;                              // [D] fp32
  at::Tensor mean_difference;                   // [D] fp32; undefined when the file has none.
  std::map<std::string, std::string> metadata;  // layer, position, bypass, induce, kl, model_digest, ...

  // What an addition adds: the mean difference, else the unit vector.
  const at::Tensor& added() const { return mean_difference.defined() ? mean_difference : unit; }
};

// InvalidArgument naming the file and tensor when `direction` is missing, not a vector of `d_model` floats, zero or not finite.
// A vector that is not of unit norm is normalized.
absl::StatusOr<Direction> ReadDirection(const std::string& path, int64_t d_model);

absl::Status WriteDirection(const std::string& path, const Direction& direction);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_DIRECTION_FILE_H_
