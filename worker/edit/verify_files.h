// Reads a written checkpoint back, once and in order: the sha256 of each file, whether its parts are what was written, and what
// each edited tensor still has along the directions. One thread hashes while another reads and measures.
#ifndef BEARING_WORKER_EDIT_VERIFY_FILES_H_
#define BEARING_WORKER_EDIT_VERIFY_FILES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/edit/file_meter.h"
#include "worker/edit/parts.h"

namespace bearing::edit {

struct FileCheck {
  std::string name;
  int64_t size = 0;
  std::string sha256;
  std::vector<TensorCheck> tensors;
};

// For notes between ranks and runs. FromJson throws where a note is none.
nlohmann::json ToJson(const FileCheck& check);
FileCheck FromJson(const nlohmann::json& note);

// One file of the copy in `folder`. `parts` are those of all files; `checksums` gives them by index, and those not in it are
// not compared. DataLoss naming file and tensor when a part differs, a value is not finite, or more is left than rounding
// leaves.
absl::StatusOr<FileCheck> VerifyFile(const std::string& folder, const EditPlan& plan, size_t file,
                                     const std::vector<Part>& parts, const std::map<size_t, uint64_t>& checksums);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_VERIFY_FILES_H_
