// Reads one tensor of a file that torch.save wrote (a zip archive of a pickle and raw storages), without running anything that
// the pickle names: of its language only what describes a tensor is understood, and all else is refused by name. The tensor's
// offset and strides are honoured (a saved view carries the whole storage), its device is ignored.
#ifndef BEARING_WORKER_EDIT_TORCH_ARCHIVE_H_
#define BEARING_WORKER_EDIT_TORCH_ARCHIVE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::edit {

struct ArchivedTensor {
  std::vector<int64_t> shape;
  std::vector<double> values;  // Row by row.
};

// InvalidArgument naming the file and what was found there. F64, F32, F16 and BF16 storages.
absl::StatusOr<ArchivedTensor> ReadTorchTensor(const std::string& path);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_TORCH_ARCHIVE_H_
