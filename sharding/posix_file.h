// Files through POSIX calls, with Status errors that name the path: what the standard streams cannot do (reads at an offset
// from many threads, fsync, exact errors).
//
// FileDescriptor owns and closes; it is movable and not copyable. The functions are thread-safe.
#ifndef BEARING_SHARDING_POSIX_FILE_H_
#define BEARING_SHARDING_POSIX_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bearing::sharding {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  bool is_open() const { return fd_ >= 0; }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// A Status for the current errno: "<action>: <reason> file=<path>".
absl::Status ErrnoStatus(std::string_view action, std::string_view path);

// Opens a regular file (symbolic links are followed). NotFound when there is none, InvalidArgument for a folder or device.
absl::StatusOr<FileDescriptor> OpenForReading(const std::string& path);

// Creates a file that must not exist yet, for reading and writing, with the permissions that the umask leaves.
absl::StatusOr<FileDescriptor> CreateNewFile(const std::string& path);

absl::StatusOr<FileDescriptor> OpenForWriting(const std::string& path);

absl::StatusOr<int64_t> FileSize(const FileDescriptor& file, std::string_view path);

// Fills `out` from `offset`. DataLoss when the file ends before.
absl::Status ReadAt(const FileDescriptor& file, int64_t offset, absl::Span<char> out, std::string_view path);

absl::Status WriteAt(const FileDescriptor& file, int64_t offset, absl::Span<const char> bytes, std::string_view path);

// Copies bytes from file to file, in the kernel where the file system can (a reflink costs no transfer at all). DataLoss when
// `from` ends before.
absl::Status CopyBytes(const FileDescriptor& from, int64_t from_offset, std::string_view from_path, const FileDescriptor& to,
                       int64_t to_offset, std::string_view to_path, int64_t num_bytes);

// Gives a new file its size and reserves the space, so that a full disk shows now (ResourceExhausted) and not at the last byte.
absl::Status ReserveSize(const FileDescriptor& file, int64_t size, std::string_view path);

// fsync of the file's bytes and size.
absl::Status SyncFile(const FileDescriptor& file, std::string_view path);

// fsync of a folder: makes creations and renames in it durable.
absl::Status SyncFolder(const std::string& path);

// The whole file; InvalidArgument when it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes);

// Creates `path` with these bytes and syncs it.
absl::Status WriteNewFile(const std::string& path, std::string_view bytes);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_POSIX_FILE_H_
