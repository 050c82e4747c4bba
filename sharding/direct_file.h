// Large writes past the page cache. On most disks that is several times faster than through it, and it leaves the cache to what
// is read. Writes may have any offset and size: the pages that a write covers only in part go through the cache, so every page
// is written either way and never both. Where the file system has no direct writes, all go through the cache.
//
// Thread-safe for writes that do not overlap, also from several processes.
#ifndef BEARING_SHARDING_DIRECT_FILE_H_
#define BEARING_SHARDING_DIRECT_FILE_H_

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/posix_file.h"

namespace bearing::sharding {

inline constexpr int64_t kDirectAlignment = 4096;

// Memory for bytes that will be written at an offset of a file, placed so that they can go there directly.
class DirectBuffer {
 public:
  DirectBuffer() = default;
  DirectBuffer(int64_t size, int64_t file_offset);

  // The same memory for other bytes; false, and nothing changed, when it is too small. Spares the kernel clearing new pages.
  bool Reuse(int64_t size, int64_t file_offset);

  char* data() const { return data_; }
  int64_t size() const { return size_; }
  int64_t capacity() const { return capacity_; }
  absl::Span<char> bytes() const { return {data_, static_cast<size_t>(size_)}; }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  int64_t capacity_ = 0;
  char* data_ = nullptr;
  int64_t size_ = 0;
};

class DirectFile {
 public:
  // A file that is there.
  static absl::StatusOr<std::unique_ptr<DirectFile>> Open(const std::string& path);

  // Writes all of `bytes` at `offset`. Direct when the memory is a DirectBuffer of this offset.
  absl::Status Write(int64_t offset, absl::Span<const char> bytes);

  absl::Status Sync();
  const FileDescriptor& file() const { return cached_; }

 private:
  DirectFile(std::string path, FileDescriptor cached) : path_(std::move(path)), cached_(std::move(cached)) {}

  const std::string path_;
  const FileDescriptor cached_;
  FileDescriptor direct_;  // Closed where there are no direct writes.
  std::atomic<bool> can_direct_ = false;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_DIRECT_FILE_H_
