#include "sharding/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

// Linux moves at most this many bytes in one read or write.
constexpr size_t kMaxTransfer = size_t{1} << 30;

constexpr int64_t kCopyBlock = 8 << 20;

absl::StatusOr<FileDescriptor> Open(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (fd < 0) return ErrnoStatus("cannot open file", path);
  return FileDescriptor(fd);
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

absl::Status ErrnoStatus(std::string_view action, std::string_view path) {
  const int error = errno;
  const absl::Status named = absl::ErrnoToStatus(error, AsAbsl(action));
  return absl::Status(named.code(), Concat(named.message(), " file=", path));
}

absl::StatusOr<FileDescriptor> OpenForReading(const std::string& path) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer that never comes.
  BEARING_ASSIGN_OR_RETURN(FileDescriptor file, Open(path, O_RDONLY | O_NONBLOCK));
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return ErrnoStatus("cannot stat file", path);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(Concat("not a regular file: file=", path));
  return file;
}

absl::StatusOr<FileDescriptor> CreateNewFile(const std::string& path) { return Open(path, O_RDWR | O_CREAT | O_EXCL); }

absl::StatusOr<FileDescriptor> OpenForWriting(const std::string& path) { return Open(path, O_RDWR); }

absl::StatusOr<int64_t> FileSize(const FileDescriptor& file, std::string_view path) {
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return ErrnoStatus("cannot stat file", path);
  return static_cast<int64_t>(info.st_size);
}

absl::Status ReadAt(const FileDescriptor& file, int64_t offset, absl::Span<char> out, std::string_view path) {
  while (!out.empty()) {
    const ssize_t n = ::pread(file.get(), out.data(), std::min(out.size(), kMaxTransfer), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("cannot read file", path);
    if (n == 0) {
      return absl::DataLossError(Concat("file ends early: file=", path, " offset=", offset, " bytes missing=", out.size()));
    }
    out.remove_prefix(static_cast<size_t>(n));
    offset += n;
  }
  return absl::OkStatus();
}

absl::Status WriteAt(const FileDescriptor& file, int64_t offset, absl::Span<const char> bytes, std::string_view path) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(file.get(), bytes.data(), std::min(bytes.size(), kMaxTransfer), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("cannot write file", path);
    bytes.remove_prefix(static_cast<size_t>(n));
    offset += n;
  }
  return absl::OkStatus();
}

absl::Status CopyBytes(const FileDescriptor& from, int64_t from_offset, std::string_view from_path, const FileDescriptor& to,
                       int64_t to_offset, std::string_view to_path, int64_t num_bytes) {
  while (num_bytes > 0) {
    off_t in = from_offset;
    off_t out = to_offset;
    const size_t want = std::min(static_cast<size_t>(num_bytes), kMaxTransfer);
    const ssize_t n = ::copy_file_range(from.get(), &in, to.get(), &out, want, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ENOSPC) return ErrnoStatus("cannot write file", to_path);
    // Not every pair of file systems can; the plain way either works or knows the reason.
    if (n <= 0) break;
    from_offset += n;
    to_offset += n;
    num_bytes -= n;
  }
  std::string block(static_cast<size_t>(std::min(num_bytes, kCopyBlock)), '\0');
  while (num_bytes > 0) {
    const absl::Span<char> part = absl::MakeSpan(block.data(), static_cast<size_t>(std::min(num_bytes, kCopyBlock)));
    BEARING_RETURN_IF_ERROR(ReadAt(from, from_offset, part, from_path));
    BEARING_RETURN_IF_ERROR(WriteAt(to, to_offset, part, to_path));
    from_offset += static_cast<int64_t>(part.size());
    to_offset += static_cast<int64_t>(part.size());
    num_bytes -= static_cast<int64_t>(part.size());
  }
  return absl::OkStatus();
}

absl::Status ReserveSize(const FileDescriptor& file, int64_t size, std::string_view path) {
  if (::ftruncate(file.get(), size) != 0) return ErrnoStatus("cannot size file", path);
  if (size == 0 || ::fallocate(file.get(), 0, 0, size) == 0) return absl::OkStatus();
  // Network file systems often cannot reserve; they report a full disk when it is full.
  if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR) return absl::OkStatus();
  return ErrnoStatus("cannot reserve space", path);
}

absl::Status SyncFile(const FileDescriptor& file, std::string_view path) {
  if (::fsync(file.get()) != 0) return ErrnoStatus("cannot sync file", path);
  return absl::OkStatus();
}

absl::Status SyncFolder(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor folder, Open(path, O_RDONLY | O_DIRECTORY));
  return SyncFile(folder, path);
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes) {
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor file, OpenForReading(path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, FileSize(file, path));
  if (size > max_bytes) {
    return absl::InvalidArgumentError(Concat("file is too large: file=", path, " size=", size, " limit=", max_bytes));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  BEARING_RETURN_IF_ERROR(ReadAt(file, 0, absl::MakeSpan(bytes), path));
  return bytes;
}

absl::Status WriteNewFile(const std::string& path, std::string_view bytes) {
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor file, CreateNewFile(path));
  BEARING_RETURN_IF_ERROR(WriteAt(file, 0, absl::MakeConstSpan(bytes.data(), bytes.size()), path));
  return SyncFile(file, path);
}

}  // namespace bearing::sharding
