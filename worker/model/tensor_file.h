// Tensors of small safetensors files: directions, means.
#ifndef BEARING_WORKER_MODEL_TENSOR_FILE_H_
#define BEARING_WORKER_MODEL_TENSOR_FILE_H_

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/statusor.h"
#include "sharding/safetensors.h"

namespace bearing::model {

// The tensor of `entry` in the type it is stored in: F64, F32, BF16 or F16, else Unimplemented. DataLoss when the file ends
// before.
absl::StatusOr<at::Tensor> ReadTensor(const std::string& path, const sharding::SafetensorsEntry& entry);

// The tensor of that name; DataLoss when the file has none.
absl::StatusOr<at::Tensor> ReadTensor(const std::string& path, const std::string& name);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_TENSOR_FILE_H_
