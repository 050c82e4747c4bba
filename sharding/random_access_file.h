// A file whose bytes can be read at any offset: on this machine (by pread), or anywhere else that implements this.
//
// Thread-safe.
#ifndef BEARING_SHARDING_RANDOM_ACCESS_FILE_H_
#define BEARING_SHARDING_RANDOM_ACCESS_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/posix_file.h"

namespace bearing::sharding {

class RandomAccessFile {
 public:
  virtual ~RandomAccessFile() = default;

  // Path or address, for messages.
  virtual const std::string& name() const = 0;

  virtual int64_t size() const = 0;

  // Fills `out` from `offset`. DataLoss when the file ends before.
  virtual absl::Status ReadAt(int64_t offset, absl::Span<char> out) const = 0;

  // The open file, where it is one of this machine; null elsewhere.
  virtual const FileDescriptor* descriptor() const { return nullptr; }

  // Changes when the file is written anew; empty where that cannot be told. Not part of any artifact: it differs between
  // machines.
  virtual std::string version() const { return ""; }

  // Reading less than this at once wastes time on waiting.
  virtual int64_t block_bytes() const { return int64_t{8} << 20; }
};

// Files by name in one folder.
class FileFolder {
 public:
  virtual ~FileFolder() = default;
  virtual bool Has(const std::string& file_name) const = 0;
  virtual absl::StatusOr<std::unique_ptr<RandomAccessFile>> Open(const std::string& file_name) const = 0;
};

std::unique_ptr<FileFolder> MakeLocalFolder(const std::string& path);

// NotFound, InvalidArgument (not a regular file).
absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenLocalFile(const std::string& path);

// CopyBytes of posix_file.h from any file, with bounded memory.
absl::Status CopyBytes(const RandomAccessFile& from, int64_t from_offset, const FileDescriptor& to, int64_t to_offset,
                       std::string_view to_path, int64_t num_bytes);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_RANDOM_ACCESS_FILE_H_
