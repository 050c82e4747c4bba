#include "sharding/checkpoint_writer.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <sstream>
#include <system_error>
#include <utility>

#include "sharding/concat.h"
#include "sharding/copy_plan.h"
#include "sharding/direct_file.h"
#include "sharding/posix_file.h"
#include "sharding/safetensors.h"
#include "sharding/side_files.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

namespace fs = std::filesystem;

bool Exists(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0;
}

absl::Status FolderError(std::string_view what, const std::string& folder, const std::error_code& error) {
  const absl::Status named = absl::ErrnoToStatus(error.value(), AsAbsl(what));
  return absl::Status(named.code(), Concat(named.message(), " folder=", folder));
}

std::string ParentOf(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// Renames a folder to a name that must be free, even against another process that takes it at this moment.
absl::Status RenameToNew(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return absl::OkStatus();
  // Some network file systems have no such rename; a plain one replaces nothing but an empty folder.
  if (errno == EINVAL || errno == ENOSYS) {
    if (Exists(to)) return absl::AlreadyExistsError(Concat("output folder exists: folder=", to));
    if (std::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  }
  return ErrnoStatus("cannot rename into place", to);
}

// Numbers of the files that were cloned, one a line; gone before the folder gets its name.
constexpr std::string_view kClonedFile = ".cloned";

// Shares the blocks of `from`: no byte is copied. False where the file system cannot.
bool Clone(const FileDescriptor& from, const FileDescriptor& to) { return ::ioctl(to.get(), FICLONE, from.get()) == 0; }

}  // namespace

struct CheckpointWriter::Impl {
  const WeightFiles* source;
  const CopyPlan* plan;
  std::string out_dir;
  std::string staged;
  std::vector<std::string> side_files;

  std::mutex mutex;                                // Guards `files` while it is filled; entries never move.
  std::vector<std::unique_ptr<DirectFile>> files;  // As plan.files, opened at first use.

  std::string StagedPath(std::string_view name) const { return Concat(staged, "/", name); }
  absl::StatusOr<DirectFile*> Output(size_t file);
  absl::Status WriteSideFile(const std::string& name) const;
  absl::StatusOr<bool> MakeWeightFile(const CopyPlan::File& file, bool is_unedited) const;
  absl::Status CheckStaged() const;
};

absl::StatusOr<DirectFile*> CheckpointWriter::Impl::Output(size_t file) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (files[file] == nullptr) {
    BEARING_ASSIGN_OR_RETURN(files[file], DirectFile::Open(StagedPath(plan->files[file].name)));
  }
  return files[file].get();
}

absl::Status CheckpointWriter::Impl::WriteSideFile(const std::string& name) const {
  const std::string to_path = StagedPath(name);
  if (const auto text = plan->side_texts.find(name); text != plan->side_texts.end()) return WriteNewFile(to_path, text->second);

  const std::string from_path = Concat(source->model_dir(), "/", name);
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor from, OpenForReading(from_path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, FileSize(from, from_path));
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor to, CreateNewFile(to_path));
  BEARING_RETURN_IF_ERROR(CopyBytes(from, 0, from_path, to, 0, to_path, size));
  return SyncFile(to, to_path);
}

// True when it is complete already.
absl::StatusOr<bool> CheckpointWriter::Impl::MakeWeightFile(const CopyPlan::File& file, bool is_unedited) const {
  const std::string path = StagedPath(file.name);
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor to, CreateNewFile(path));
  const FileDescriptor* const local = is_unedited && file.same_as ? source->file(*file.same_as).descriptor() : nullptr;
  if (local != nullptr && Clone(*local, to)) {
    BEARING_RETURN_IF_ERROR(SyncFile(to, path));
    return true;
  }
  BEARING_RETURN_IF_ERROR(ReserveSize(to, file.size, path));
  return false;
}

// A last look before the name becomes public: every file is there, whole, and readable as what it claims to be.
absl::Status CheckpointWriter::Impl::CheckStaged() const {
  for (const CopyPlan::File& file : plan->files) {
    const absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(StagedPath(file.name));
    BEARING_RETURN_IF_ERROR(header.status());
  }
  for (const std::string& name : side_files) {
    if (!Exists(StagedPath(name))) return absl::NotFoundError(Concat("staged file is gone: file=", StagedPath(name)));
  }
  return absl::OkStatus();
}

CheckpointWriter::CheckpointWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CheckpointWriter::~CheckpointWriter() = default;

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(const WeightFiles* source, const CopyPlan* plan,
                                                                           const std::string& out_dir) {
  auto impl = std::make_unique<Impl>();
  impl->source = source;
  impl->plan = plan;
  impl->out_dir = out_dir;
  while (impl->out_dir.size() > 1 && impl->out_dir.back() == '/') impl->out_dir.pop_back();
  if (impl->out_dir.empty() || impl->out_dir == "/") {
    return absl::InvalidArgumentError(Concat("bad output folder: folder=\"", out_dir, "\""));
  }
  if (Exists(impl->out_dir)) return absl::AlreadyExistsError(Concat("output folder exists: folder=", impl->out_dir));
  impl->staged = impl->out_dir + ".partial";
  BEARING_ASSIGN_OR_RETURN(impl->side_files, FindSideFiles(source->model_dir()));
  for (const auto& [name, text] : plan->side_texts) {
    if (std::find(impl->side_files.begin(), impl->side_files.end(), name) == impl->side_files.end()) {
      impl->side_files.push_back(name);
    }
  }
  impl->files.resize(plan->files.size());
  return std::unique_ptr<CheckpointWriter>(new CheckpointWriter(std::move(impl)));
}

absl::Status CheckpointWriter::Prepare(const std::set<size_t>& unedited) {
  if (Exists(impl_->out_dir)) return absl::AlreadyExistsError(Concat("output folder exists: folder=", impl_->out_dir));
  std::error_code error;
  fs::remove_all(impl_->staged, error);
  if (error) return FolderError("cannot remove an older staged folder", impl_->staged, error);
  fs::create_directories(impl_->staged, error);
  if (error) return FolderError("cannot create folder", impl_->staged, error);
  for (const std::string& name : impl_->side_files) {
    fs::create_directories(ParentOf(impl_->StagedPath(name)), error);
    if (error) return FolderError("cannot create folder", ParentOf(impl_->StagedPath(name)), error);
    BEARING_RETURN_IF_ERROR(impl_->WriteSideFile(name));
  }
  std::string cloned;
  for (size_t i = 0; i < impl_->plan->files.size(); ++i) {
    BEARING_ASSIGN_OR_RETURN(const bool done, impl_->MakeWeightFile(impl_->plan->files[i], unedited.contains(i)));
    if (done) absl::StrAppend(&cloned, i, "\n");
  }
  return WriteNewFile(impl_->StagedPath(kClonedFile), cloned);
}

absl::StatusOr<std::set<size_t>> CheckpointWriter::ClonedFiles() const {
  BEARING_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(impl_->StagedPath(kClonedFile), 1 << 20));
  std::istringstream lines(text);
  std::set<size_t> files;
  for (size_t file; lines >> file;) files.insert(file);
  return files;
}

absl::Status CheckpointWriter::WritePart(size_t file, int64_t offset, absl::Span<const char> bytes) {
  if (file >= impl_->plan->files.size() || offset < 0 ||
      offset + static_cast<int64_t>(bytes.size()) > impl_->plan->files[file].size) {
    return absl::InvalidArgumentError(
        Concat("part lies outside its file: file=", file, " offset=", offset, " bytes=", bytes.size()));
  }
  BEARING_ASSIGN_OR_RETURN(DirectFile* const to, impl_->Output(file));
  return to->Write(offset, bytes);
}

absl::Status CheckpointWriter::Sync() {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  for (const std::unique_ptr<DirectFile>& file : impl_->files) {
    if (file != nullptr) BEARING_RETURN_IF_ERROR(file->Sync());
  }
  return absl::OkStatus();
}

absl::Status CheckpointWriter::Commit() {
  BEARING_RETURN_IF_ERROR(impl_->CheckStaged());
  std::error_code error;
  fs::remove(impl_->StagedPath(kClonedFile), error);
  if (error) return FolderError("cannot remove file", impl_->StagedPath(kClonedFile), error);
  std::set<std::string> folders = {impl_->staged};
  for (const std::string& name : impl_->side_files) folders.insert(ParentOf(impl_->StagedPath(name)));
  for (const std::string& folder : folders) BEARING_RETURN_IF_ERROR(SyncFolder(folder));
  BEARING_RETURN_IF_ERROR(RenameToNew(impl_->staged, impl_->out_dir));
  return SyncFolder(ParentOf(impl_->out_dir));
}

const std::string& CheckpointWriter::staged_folder() const { return impl_->staged; }

std::vector<std::string> CheckpointWriter::files() const {
  std::vector<std::string> names = impl_->side_files;
  for (const CopyPlan::File& file : impl_->plan->files) names.push_back(file.name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace bearing::sharding
