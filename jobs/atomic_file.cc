#include "jobs/atomic_file.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <limits>
#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "jobs/artifacts.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "storage/location.h"

namespace bearing::jobs {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 30;
constexpr size_t kPendingBytes = 1 << 20;

namespace fs = std::filesystem;

constexpr char kTemporaryMark[] = ".tmp-";

std::string FolderOf(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

std::string TemporaryBeside(const std::string& path) {
  std::random_device random;
  const std::string name =
      absl::StrFormat(".%s%s%08x%08x", fs::path(path).filename().string(), kTemporaryMark, random(), random());
  return (fs::path(FolderOf(path)) / name).string();
}

absl::StatusOr<std::string> WriteTemporary(const std::string& path, std::string_view content) {
  const std::string temporary = TemporaryBeside(path);
  const absl::Status written = sharding::WriteNewFile(temporary, content);
  if (!written.ok()) {
    unlink(temporary.c_str());
    return written;
  }
  return temporary;
}

}  // namespace

absl::Status WriteFileAtomically(const std::string& path, std::string_view content) {
  BEARING_ASSIGN_OR_RETURN(const std::string temporary, WriteTemporary(path, content));
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status error = sharding::ErrnoStatus("cannot rename to", path);
    unlink(temporary.c_str());
    return error;
  }
  return sharding::SyncFolder(FolderOf(path));
}

absl::Status CreateFileAtomically(const std::string& path, std::string_view content) {
  BEARING_ASSIGN_OR_RETURN(const std::string temporary, WriteTemporary(path, content));
  int failed = link(temporary.c_str(), path.c_str());
  // Some network file systems have no hard links.
  if (failed != 0 && errno != EEXIST) {
    failed = renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE);
  }
  const bool exists = failed != 0 && errno == EEXIST;
  const absl::Status error = failed == 0 ? absl::OkStatus() : sharding::ErrnoStatus("cannot create", path);
  unlink(temporary.c_str());
  if (exists) return absl::AlreadyExistsError(Concat("the file exists: file=", path));
  BEARING_RETURN_IF_ERROR(error);
  return sharding::SyncFolder(FolderOf(path));
}

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Create(const std::string& path) {
  std::string temporary = TemporaryBeside(path);
  BEARING_ASSIGN_OR_RETURN(sharding::FileDescriptor file, sharding::CreateNewFile(temporary));
  return std::unique_ptr<AtomicFile>(new AtomicFile(path, std::move(temporary), std::move(file)));
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status AtomicFile::Append(std::string_view bytes) {
  pending_ += bytes;
  return pending_.size() >= kPendingBytes ? Flush() : absl::OkStatus();
}

absl::Status AtomicFile::Flush() {
  BEARING_RETURN_IF_ERROR(sharding::WriteAt(file_, size_, absl::MakeConstSpan(pending_.data(), pending_.size()), temporary_));
  size_ += static_cast<int64_t>(pending_.size());
  pending_.clear();
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  BEARING_RETURN_IF_ERROR(Flush());
  BEARING_RETURN_IF_ERROR(sharding::SyncFile(file_, temporary_));
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return sharding::ErrnoStatus("cannot rename to", path_);
  temporary_.clear();
  return sharding::SyncFolder(FolderOf(path_));
}

bool IsTemporaryName(std::string_view name) {
  return name.size() > 1 && name.front() == '.' && name.find(kTemporaryMark) != std::string_view::npos;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) { return sharding::ReadWholeFile(path, kMaxFileBytes); }

absl::StatusOr<std::string> ReadInput(const std::string& address) {
  return storage::HasScheme(address) ? storage::ReadSmallFile(address, kMaxFileBytes) : ReadFile(address);
}

absl::StatusOr<std::string> Sha256OfFile(const std::string& path) { return sharding::Sha256OfFile(path); }

std::string Sha256OfBytes(std::string_view bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), sizeof(digest)));
}

}  // namespace bearing::jobs
