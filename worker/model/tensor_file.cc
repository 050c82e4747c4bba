#include "worker/model/tensor_file.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "worker/model/weight_loader.h"

namespace bearing::model {

absl::StatusOr<at::Tensor> ReadTensor(const std::string& path, const sharding::SafetensorsEntry& entry) {
  at::ScalarType type = at::kDouble;
  if (entry.dtype != sharding::DType::kF64) {
    BEARING_ASSIGN_OR_RETURN(type, ToScalarType(entry.dtype));
  }
  at::Tensor tensor = at::empty(entry.shape, type);
  BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::OpenForReading(path));
  BEARING_RETURN_IF_ERROR(
      sharding::ReadAt(file, entry.file_offset, absl::MakeSpan(static_cast<char*>(tensor.data_ptr()), tensor.nbytes()), path));
  return tensor;
}

absl::StatusOr<at::Tensor> ReadTensor(const std::string& path, const std::string& name) {
  BEARING_ASSIGN_OR_RETURN(const sharding::SafetensorsHeader header, sharding::ReadSafetensorsHeader(path));
  for (const sharding::SafetensorsEntry& entry : header.entries) {
    if (entry.name == name) return ReadTensor(path, entry);
  }
  return absl::DataLossError(absl::StrCat("tensor is missing: file=", path, " tensor=", name));
}

}  // namespace bearing::model
