#include "sharding/direct_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>

#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

// Below this a write is not worth a trip to the disk of its own.
constexpr int64_t kSmallestDirect = 256 << 10;
constexpr int64_t kHugePage = 2 << 20;

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace

DirectBuffer::DirectBuffer(int64_t size, int64_t file_offset) : size_(size) {
  const int64_t shift = file_offset % kDirectAlignment;
  const int64_t alignment = size >= kHugePage ? kHugePage : kDirectAlignment;
  capacity_ = RoundUp(size + shift, alignment);
  memory_.reset(static_cast<char*>(std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(capacity_))));
  if (memory_ == nullptr) throw std::bad_alloc();
  // A hint: fewer page faults on memory that is used once.
  if (size >= kHugePage) ::madvise(memory_.get(), static_cast<size_t>(capacity_), MADV_HUGEPAGE);
  data_ = memory_.get() + shift;
}

bool DirectBuffer::Reuse(int64_t size, int64_t file_offset) {
  const int64_t shift = file_offset % kDirectAlignment;
  if (size + shift > capacity_) return false;
  data_ = memory_.get() + shift;
  size_ = size;
  return true;
}

absl::StatusOr<std::unique_ptr<DirectFile>> DirectFile::Open(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(FileDescriptor cached, OpenForWriting(path));
  std::unique_ptr<DirectFile> file(new DirectFile(path, std::move(cached)));
  file->direct_ = FileDescriptor(::open(path.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
  file->can_direct_ = file->direct_.is_open();
  return file;
}

absl::Status DirectFile::Write(int64_t offset, absl::Span<const char> bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  const int64_t begin = RoundUp(offset, kDirectAlignment);
  const int64_t end = (offset + size) / kDirectAlignment * kDirectAlignment;
  const bool aligned =
      reinterpret_cast<uintptr_t>(bytes.data()) % kDirectAlignment == static_cast<uintptr_t>(offset % kDirectAlignment);
  if (!can_direct_ || !aligned || end - begin < kSmallestDirect) return WriteAt(cached_, offset, bytes, path_);

  BEARING_RETURN_IF_ERROR(WriteAt(cached_, offset, bytes.subspan(0, static_cast<size_t>(begin - offset)), path_));
  int64_t at = begin;
  while (at < end) {
    const ssize_t n =
        ::pwrite(direct_.get(), bytes.data() + (at - offset), static_cast<size_t>(std::min(end - at, int64_t{1} << 30)), at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) {
      can_direct_ = false;
      break;
    }
    if (n < 0) return ErrnoStatus("cannot write file", path_);
    at += n;
    if (n % kDirectAlignment != 0) break;  // The file system cut it short; what is left goes the other way.
  }
  return WriteAt(cached_, at, bytes.subspan(static_cast<size_t>(at - offset)), path_);
}

absl::Status DirectFile::Sync() { return SyncFile(cached_, path_); }

}  // namespace bearing::sharding
