// Where something is made on this machine before it is put into a bucket.
#ifndef BEARING_STORAGE_STAGING_FOLDER_H_
#define BEARING_STORAGE_STAGING_FOLDER_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bearing::storage {

// PARENT/bearing-KIND-HASH, PARENT from BEARING_STAGING, else TMPDIR, else /tmp; HASH from `identity`. So the same work finds
// its folder again when it is run again, and other work does not. Makes nothing. Ranks on several hosts must share PARENT.
// NotFound when TMPDIR is no folder. Thread-safe.
absl::StatusOr<std::string> StagingFolder(std::string_view kind, std::string_view identity);

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_STAGING_FOLDER_H_
