#include "sharding/random_access_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

class LocalFile final : public RandomAccessFile {
 public:
  LocalFile(FileDescriptor file, std::string path, int64_t size)
      : file_(std::move(file)), path_(std::move(path)), size_(size) {}

  const std::string& name() const override { return path_; }
  int64_t size() const override { return size_; }
  absl::Status ReadAt(int64_t offset, absl::Span<char> out) const override {
    return sharding::ReadAt(file_, offset, out, path_);
  }
  const FileDescriptor* descriptor() const override { return &file_; }
  std::string version() const override {
    struct stat info;
    if (::fstat(file_.get(), &info) != 0) return "";
    return Concat(info.st_dev, "-", info.st_ino, "-", info.st_size, "-", info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec);
  }

 private:
  FileDescriptor file_;
  std::string path_;
  int64_t size_;
};

class LocalFolder final : public FileFolder {
 public:
  explicit LocalFolder(std::string path) : path_(std::move(path)) {}

  bool Has(const std::string& file_name) const override {
    std::error_code error;
    return std::filesystem::exists(PathOf(file_name), error);
  }

  absl::StatusOr<std::unique_ptr<RandomAccessFile>> Open(const std::string& file_name) const override {
    return OpenLocalFile(PathOf(file_name));
  }

 private:
  std::string PathOf(const std::string& file_name) const { return Concat(path_, "/", file_name); }

  std::string path_;
};

}  // namespace

std::unique_ptr<FileFolder> MakeLocalFolder(const std::string& path) { return std::make_unique<LocalFolder>(path); }

absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenLocalFile(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(FileDescriptor file, OpenForReading(path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, FileSize(file, path));
  return std::make_unique<LocalFile>(std::move(file), path, size);
}

absl::Status CopyBytes(const RandomAccessFile& from, int64_t from_offset, const FileDescriptor& to, int64_t to_offset,
                       std::string_view to_path, int64_t num_bytes) {
  if (const FileDescriptor* file = from.descriptor(); file != nullptr) {
    return CopyBytes(*file, from_offset, from.name(), to, to_offset, to_path, num_bytes);
  }
  std::string block(static_cast<size_t>(std::min(num_bytes, from.block_bytes())), '\0');
  while (num_bytes > 0) {
    const absl::Span<char> part = absl::MakeSpan(block.data(), static_cast<size_t>(std::min<int64_t>(num_bytes, block.size())));
    BEARING_RETURN_IF_ERROR(from.ReadAt(from_offset, part));
    BEARING_RETURN_IF_ERROR(WriteAt(to, to_offset, part, to_path));
    from_offset += static_cast<int64_t>(part.size());
    to_offset += static_cast<int64_t>(part.size());
    num_bytes -= static_cast<int64_t>(part.size());
  }
  return absl::OkStatus();
}

}  // namespace bearing::sharding
