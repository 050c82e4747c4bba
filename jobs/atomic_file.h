// Files that appear whole or not at all. Thread-safe functions; errors are those of the file system, naming the file.
#ifndef BEARING_JOBS_ATOMIC_FILE_H_
#define BEARING_JOBS_ATOMIC_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/posix_file.h"

namespace bearing::jobs {

// As WriteFileAtomically of artifacts.h, but AlreadyExists when there is a file of that name; of several callers one succeeds.
absl::Status CreateFileAtomically(const std::string& path, std::string_view content);

// A file that is written piece by piece and gets its name at the end; what is not committed is removed. Not thread-safe.
class AtomicFile {
 public:
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Create(const std::string& path);
  ~AtomicFile();

  absl::Status Append(std::string_view bytes);
  absl::Status Commit();  // Syncs, renames, syncs the folder.

 private:
  AtomicFile(std::string path, std::string temporary, sharding::FileDescriptor file)
      : path_(std::move(path)), temporary_(std::move(temporary)), file_(std::move(file)) {}
  absl::Status Flush();

  std::string path_, temporary_;  // Nothing to remove once `temporary_` is empty.
  sharding::FileDescriptor file_;
  std::string pending_;
  int64_t size_ = 0;
};

// Is this the name of a file that an interrupted write left behind?
bool IsTemporaryName(std::string_view name);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_ATOMIC_FILE_H_
