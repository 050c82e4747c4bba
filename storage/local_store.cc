#include "storage/local_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_split.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"

namespace bearing::storage {
namespace {

namespace fs = std::filesystem;
using sharding::ErrnoStatus;
using sharding::FileDescriptor;

constexpr std::string_view kTemporaryPrefix = ".bearing-upload-";

// A key must not lead elsewhere by "..", and must be one name for one file.
absl::StatusOr<std::string> PathOf(std::string_view key) {
  bool good = key.find('\0') == std::string_view::npos;
  for (const absl::string_view part : absl::StrSplit(AsAbsl(key), '/')) {
    good = good && part != "." && part != ".." && (!part.empty() || key.empty());
  }
  if (!good) return absl::InvalidArgumentError(Concat("not a usable key of a file: key=", Escaped(key)));
  return Concat("/", key);
}

std::string FolderOf(const std::string& path) { return fs::path(path).parent_path().string(); }

bool IsTemporary(std::string_view name) { return name.starts_with(kTemporaryPrefix); }

// Beside `path`, unlike that of any other writer on this machine.
std::string TemporaryPath(const std::string& path) {
  static std::atomic<uint64_t> counter{0};
  return Concat(FolderOf(path), "/", kTemporaryPrefix, ::getpid(), "-", counter++, "-", fs::path(path).filename().string());
}

absl::Status FolderError(std::string_view what, const std::string& folder, const std::error_code& error) {
  const absl::Status named = absl::ErrnoToStatus(error.value(), AsAbsl(what));
  return absl::Status(named.code(), Concat(named.message(), " folder=", folder));
}

const absl::Status& StatusOf(const absl::Status& status) { return status; }
const absl::Status& StatusOf(const absl::StatusOr<FileDescriptor>& file) { return file.status(); }

absl::Status MakeFolder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return error ? FolderError("cannot create folder", folder, error) : absl::OkStatus();
}

// Makes the folder of `path` and calls `create`, again when another writer removed the folder in between because it was empty.
template <typename Create>
auto CreateInFolder(const std::string& path, const Create& create) -> decltype(create()) {
  constexpr int kTries = 64;
  for (int i = 1;; ++i) {
    const absl::Status made = MakeFolder(FolderOf(path));
    auto created = made.ok() ? create() : decltype(create())(made);
    if (i == kTries || !absl::IsNotFound(StatusOf(created))) return created;
  }
}

ObjectInfo InfoOf(std::string key, const struct stat& info) {
  return {.key = std::move(key),
          .size = static_cast<int64_t>(info.st_size),
          .etag = Concat(info.st_ino, "-", info.st_size, "-", info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec)};
}

absl::StatusOr<ObjectInfo> StatOf(const FileDescriptor& file, std::string_view key, const std::string& path) {
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return ErrnoStatus("cannot stat file", path);
  return InfoOf(std::string(key), info);
}

// Renames a finished temporary file; on failure it is removed.
absl::Status MoveIntoPlace(const std::string& temporary, const std::string& path) {
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status status = ErrnoStatus("cannot rename into place", path);
    ::unlink(temporary.c_str());
    return status;
  }
  return sharding::SyncFolder(FolderOf(path));
}

class LocalWriter final : public ObjectWriter {
 public:
  LocalWriter(FileDescriptor file, std::string temporary, std::string path)
      : file_(std::move(file)), temporary_(std::move(temporary)), path_(std::move(path)) {}

  ~LocalWriter() override {
    if (!finished_) ::unlink(temporary_.c_str());
  }

  absl::Status Write(absl::Span<const char> bytes) override {
    BEARING_RETURN_IF_ERROR(sharding::WriteAt(file_, offset_, bytes, path_));
    offset_ += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    BEARING_RETURN_IF_ERROR(sharding::SyncFile(file_, path_));
    finished_ = true;  // From here on the rename owns the temporary file.
    return MoveIntoPlace(temporary_, path_);
  }

 private:
  FileDescriptor file_;
  std::string temporary_;
  std::string path_;
  int64_t offset_ = 0;
  bool finished_ = false;
};

class LocalStore final : public ObjectStore {
 public:
  std::string Name(std::string_view key) const override { return Concat("/", key); }

  absl::StatusOr<ObjectInfo> Stat(std::string_view key) const override {
    BEARING_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
    BEARING_ASSIGN_OR_RETURN(const FileDescriptor file, sharding::OpenForReading(path));
    return StatOf(file, key, path);
  }

  absl::StatusOr<std::vector<ObjectInfo>> List(std::string_view prefix) const override {
    std::vector<ObjectInfo> found;
    BEARING_RETURN_IF_ERROR(Walk(prefix, [&](const fs::path& path) {
      struct stat info;
      // Links are followed: the caches of model hubs are made of them. What is gone by now is left out.
      if (IsTemporary(path.filename().string()) || ::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
      found.push_back(InfoOf(path.string().substr(1), info));
    }));
    std::sort(found.begin(), found.end(), [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
    return found;
  }

  absl::Status ReadRange(std::string_view key, int64_t offset, absl::Span<char> out, std::string_view etag) const override {
    BEARING_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
    BEARING_ASSIGN_OR_RETURN(const FileDescriptor file, sharding::OpenForReading(path));
    if (!etag.empty()) {
      BEARING_ASSIGN_OR_RETURN(const ObjectInfo info, StatOf(file, key, path));
      if (info.etag != etag) return absl::FailedPreconditionError(Concat("file changed while it was read: file=", path));
    }
    return sharding::ReadAt(file, offset, out, path);
  }

  absl::Status Put(std::string_view key, std::string_view bytes) override {
    BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> writer, Write(key, static_cast<int64_t>(bytes.size())));
    BEARING_RETURN_IF_ERROR(writer->Write(absl::MakeConstSpan(bytes.data(), bytes.size())));
    return writer->Finish();
  }

  absl::Status PutIfAbsent(std::string_view key, std::string_view bytes) override {
    BEARING_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
    const absl::Status status = CreateInFolder(path, [&]() -> absl::Status {
      const std::string temporary = TemporaryPath(path);
      BEARING_RETURN_IF_ERROR(sharding::WriteNewFile(temporary, bytes));
      const int linked = ::link(temporary.c_str(), path.c_str());
      const absl::Status linking = linked == 0 ? absl::OkStatus() : ErrnoStatus("cannot create file", path);
      ::unlink(temporary.c_str());
      return linking;
    });
    if (absl::IsAlreadyExists(status)) {
      const auto stored = sharding::ReadWholeFile(path, static_cast<int64_t>(bytes.size()));
      return stored.ok() && *stored == bytes ? absl::OkStatus() : status;
    }
    BEARING_RETURN_IF_ERROR(status);
    return sharding::SyncFolder(FolderOf(path));
  }

  absl::StatusOr<std::unique_ptr<ObjectWriter>> Write(std::string_view key, int64_t size) override {
    BEARING_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
    std::string temporary = TemporaryPath(path);
    BEARING_ASSIGN_OR_RETURN(FileDescriptor file, CreateInFolder(path, [&] { return sharding::CreateNewFile(temporary); }));
    return std::make_unique<LocalWriter>(std::move(file), std::move(temporary), path);
  }

  absl::Status Copy(std::string_view from, std::string_view to) override {
    BEARING_ASSIGN_OR_RETURN(const std::string from_path, PathOf(from));
    BEARING_ASSIGN_OR_RETURN(const std::string to_path, PathOf(to));
    BEARING_ASSIGN_OR_RETURN(const FileDescriptor source, sharding::OpenForReading(from_path));
    const std::string temporary = TemporaryPath(to_path);
    struct stat info;
    const bool plain = ::lstat(from_path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
    const auto link = [&] {
      return ::link(from_path.c_str(), temporary.c_str()) == 0 ? absl::OkStatus() : ErrnoStatus("cannot link file", to_path);
    };
    if (plain && CreateInFolder(to_path, link).ok()) {
      const absl::Status moved = MoveIntoPlace(temporary, to_path);
      // A rename between two names of one file does nothing, and leaves both.
      ::unlink(temporary.c_str());
      return moved;
    }
    BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(source, from_path));
    BEARING_ASSIGN_OR_RETURN(const FileDescriptor copy,
                             CreateInFolder(to_path, [&] { return sharding::CreateNewFile(temporary); }));
    absl::Status status = sharding::CopyBytes(source, 0, from_path, copy, 0, to_path, size);
    if (status.ok()) status = sharding::SyncFile(copy, to_path);
    if (status.ok()) return MoveIntoPlace(temporary, to_path);
    ::unlink(temporary.c_str());
    return status;
  }

  // Folders that this empties go too, so that a folder stands for its objects as in a bucket.
  absl::Status Delete(std::string_view key) override {
    BEARING_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
    if (::unlink(path.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR) return ErrnoStatus("cannot delete file", path);
    RemoveEmptyFolders(FolderOf(path));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<PendingUpload>> PendingUploads(std::string_view prefix) const override {
    std::vector<PendingUpload> found;
    BEARING_RETURN_IF_ERROR(Walk(prefix, [&](const fs::path& path) {
      const std::string name = path.filename().string();
      if (!IsTemporary(name)) return;
      // .bearing-upload-PID-NUMBER-NAME
      const std::pair<std::string, std::string> split =
          absl::StrSplit(name.substr(kTemporaryPrefix.size()), absl::MaxSplits('-', 1));
      const std::pair<std::string, std::string> tail = absl::StrSplit(split.second, absl::MaxSplits('-', 1));
      found.push_back({.key = JoinedKey(path, tail.second), .id = name});
    }));
    return found;
  }

  absl::Status Abort(const PendingUpload& upload) override {
    BEARING_ASSIGN_OR_RETURN(const std::string path, PathOf(upload.key));
    if (!IsTemporary(upload.id) || upload.id.find('/') != std::string::npos) {
      return absl::InvalidArgumentError(Concat("not an upload: id=", Escaped(upload.id)));
    }
    const std::string temporary = Concat(FolderOf(path), "/", upload.id);
    if (::unlink(temporary.c_str()) != 0 && errno != ENOENT) return ErrnoStatus("cannot delete file", temporary);
    RemoveEmptyFolders(FolderOf(path));
    return absl::OkStatus();
  }

 private:
  static std::string JoinedKey(const fs::path& beside, const std::string& name) {
    return (beside.parent_path() / name).string().substr(1);
  }

  template <typename Visit>
  static absl::Status Walk(std::string_view prefix, const Visit& visit) {
    BEARING_ASSIGN_OR_RETURN(const std::string top, PathOf(prefix));
    std::vector<fs::path> folders = {top};
    while (!folders.empty()) {
      const fs::path folder = std::move(folders.back());
      folders.pop_back();
      std::error_code error;
      for (fs::directory_iterator it(folder, error); !error && it != fs::directory_iterator(); it.increment(error)) {
        std::error_code no_type;
        if (it->is_directory(no_type)) {
          folders.push_back(it->path());
        } else {
          visit(it->path());
        }
      }
      // A folder that another process removes meanwhile has nothing to list; those beside it have.
      const bool nothing = error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
      if (error && !nothing) return FolderError("cannot list folder", folder.string(), error);
    }
    return absl::OkStatus();
  }

  // Only folders that hold staged files: others were not made by this store, or are wanted.
  static void RemoveEmptyFolders(std::string folder) {
    while (folder.find("/.attempts") != std::string::npos && ::rmdir(folder.c_str()) == 0) folder = FolderOf(folder);
  }
};

}  // namespace

std::unique_ptr<ObjectStore> MakeLocalStore() { return std::make_unique<LocalStore>(); }

}  // namespace bearing::storage
