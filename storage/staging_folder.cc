#include "storage/staging_folder.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "sharding/concat.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::storage {
namespace {

constexpr size_t kNameDigits = 24;

}  // namespace

absl::StatusOr<std::string> StagingFolder(std::string_view kind, std::string_view identity) {
  namespace fs = std::filesystem;
  std::error_code error;
  const char* const given = std::getenv("BEARING_STAGING");
  const fs::path parent = given != nullptr && *given != '\0' ? fs::absolute(given, error) : fs::temp_directory_path(error);
  if (error) return absl::NotFoundError(Concat("no folder for temporary files: ", error.message()));
  BEARING_ASSIGN_OR_RETURN(const std::string hash, sharding::Sha256Hex(identity));
  return (parent / Concat("bearing-", kind, "-", hash.substr(0, kNameDigits))).string();
}

}  // namespace bearing::storage
