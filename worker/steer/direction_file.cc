#include "worker/steer/direction_file.h"

#include <ATen/ATen.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"
#include "worker/model/tensor_file.h"

namespace bearing::steer {
namespace {

absl::StatusOr<at::Tensor> ReadVector(const std::string& path, const sharding::SafetensorsEntry& entry, int64_t d_model) {
  if (entry.shape.size() != 1 || entry.shape[0] != d_model) {
    std::string shape;
    for (const int64_t n : entry.shape) absl::StrAppend(&shape, shape.empty() ? "" : ", ", n);
    return absl::InvalidArgumentError(
        absl::StrCat("vector of another size: file=", path, " tensor=", entry.name, " want=[", d_model, "] got=[", shape, "]"));
  }
  BEARING_ASSIGN_OR_RETURN(at::Tensor vector, model::ReadTensor(path, entry));
  vector = vector.to(at::kFloat);
  if (!at::isfinite(vector).all().item<bool>()) {
    return absl::InvalidArgumentError(absl::StrCat("vector holds NaN or Inf: file=", path, " tensor=", entry.name));
  }
  return vector;
}

}  // namespace

absl::StatusOr<Direction> ReadDirection(const std::string& path, int64_t d_model) {
  BEARING_ASSIGN_OR_RETURN(const sharding::SafetensorsHeader header, sharding::ReadSafetensorsHeader(path));
  Direction direction;
  direction.metadata = header.metadata;
  for (const sharding::SafetensorsEntry& entry : header.entries) {
    if (entry.name == "direction") {
      BEARING_ASSIGN_OR_RETURN(direction.unit, ReadVector(path, entry, d_model));
    } else if (entry.name == "mean_difference") {
      BEARING_ASSIGN_OR_RETURN(direction.mean_difference, ReadVector(path, entry, d_model));
    }
  }
  if (!direction.unit.defined()) {
    return absl::InvalidArgumentError(absl::StrCat("no tensor named \"direction\": file=", path));
  }
  const at::Tensor wide = direction.unit.to(at::kDouble);
  const double norm = at::norm(wide).item<double>();
  if (norm == 0) return absl::InvalidArgumentError(absl::StrCat("the direction is zero: file=", path));
  direction.unit = (wide / norm).to(at::kFloat);
  return direction;
}

absl::Status WriteDirection(const std::string& path, const Direction& direction) {
  const at::Tensor unit = direction.unit.to(at::kFloat).contiguous();
  std::vector<sharding::SafetensorsTensor> tensors = {
      {"direction", sharding::DType::kF32, {unit.size(0)}, unit.const_data_ptr<float>()}};
  at::Tensor difference;
  if (direction.mean_difference.defined()) {
    difference = direction.mean_difference.to(at::kFloat).contiguous();
    tensors.push_back({"mean_difference", sharding::DType::kF32, {difference.size(0)}, difference.const_data_ptr<float>()});
  }
  return sharding::WriteSafetensors(path, tensors, direction.metadata);
}

}  // namespace bearing::steer
