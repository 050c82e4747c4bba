#include "storage/temp_folder.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "sharding/concat.h"
#include "sharding/posix_file.h"

namespace bearing::storage {

absl::StatusOr<TempFolder> TempFolder::Make() {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
  std::string path = Concat(error ? "/tmp" : parent.string(), "/bearing-XXXXXX");
  if (::mkdtemp(path.data()) == nullptr) return sharding::ErrnoStatus("cannot make a temporary folder", path);
  return TempFolder(std::move(path));
}

TempFolder& TempFolder::operator=(TempFolder&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace bearing::storage
