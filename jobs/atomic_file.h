// Files that appear whole or not at all. Thread-safe functions; errors are those of the file system, naming the file.
#ifndef BEARING_JOBS_ATOMIC_FILE_H_
#define BEARING_JOBS_ATOMIC_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bearing::jobs {

// As WriteFileAtomically of artifacts.h, but AlreadyExists when there is a file of that name; of several callers one succeeds.
absl::Status CreateFileAtomically(const std::string& path, std::string_view content);

// Is this the name of a file that an interrupted write left behind?
bool IsTemporaryName(std::string_view name);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_ATOMIC_FILE_H_
