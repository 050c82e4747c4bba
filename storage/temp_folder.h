// A folder of this process alone, for small files that have to be files. Removed with its content when destroyed.
//
// Made below TMPDIR (/tmp), readable by this user only. Movable; not thread-safe.
#ifndef BEARING_STORAGE_TEMP_FOLDER_H_
#define BEARING_STORAGE_TEMP_FOLDER_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace bearing::storage {

class TempFolder {
 public:
  static absl::StatusOr<TempFolder> Make();
  TempFolder(TempFolder&& other) noexcept : path_(std::exchange(other.path_, "")) {}
  TempFolder& operator=(TempFolder&& other) noexcept;
  ~TempFolder();

  const std::string& path() const { return path_; }

 private:
  explicit TempFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_TEMP_FOLDER_H_
