#include "sharding/checkpoint_writer.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
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

// Lets two folders change places in one step.
absl::Status Exchange(const std::string& a, const std::string& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return absl::OkStatus();
  if (errno == EINVAL || errno == ENOSYS) {
    return absl::UnimplementedError(
        Concat("this file system cannot replace a folder in one step; remove it first: folder=", b));
  }
  return ErrnoStatus("cannot replace", b);
}

// What is in the staged folder beside the copy, and gone before the folder gets its name: the numbers of the files that were
// cloned, one a line; the identity, written when all else is prepared; notes of the caller.
constexpr std::string_view kClonedFile = ".cloned";
constexpr std::string_view kIdentityFile = ".identity";
constexpr std::string_view kNotePrefix = ".note-";
constexpr int64_t kMaxRecordBytes = 1 << 20;

// Opens and locks a folder, made when missing. The lock ends with the process, however that ends.
absl::StatusOr<FileDescriptor> LockFolder(const std::string& folder) {
  constexpr int kTries = 8;
  for (int i = 0; i < kTries; ++i) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) return FolderError("cannot create folder", folder, error);
    FileDescriptor opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!opened.is_open() && errno == ENOENT) continue;
    if (!opened.is_open()) return ErrnoStatus("cannot open folder", folder);
    if (::flock(opened.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return opened;  // A file system without locks.
      return absl::AlreadyExistsError(Concat("another run is writing there: folder=", folder));
    }
    // Its holder may have renamed or removed it before the lock was ours.
    struct stat mine;
    struct stat named;
    const bool same = ::fstat(opened.get(), &mine) == 0 && ::stat(folder.c_str(), &named) == 0 && mine.st_dev == named.st_dev &&
                      mine.st_ino == named.st_ino;
    if (same) return opened;
  }
  return absl::UnavailableError(Concat("the staged folder comes and goes; does another run use it? folder=", folder));
}

// Shares the blocks of `from`: no byte is copied. False where the file system cannot.
bool Clone(const FileDescriptor& from, const FileDescriptor& to) { return ::ioctl(to.get(), FICLONE, from.get()) == 0; }

}  // namespace

struct CheckpointWriter::Impl {
  const WeightFiles* source;
  const CopyPlan* plan;
  std::string out_dir;
  std::string staged;
  std::vector<std::string> side_files;
  Existing existing = Existing::kRefuse;
  FileDescriptor lock;  // Of the staged folder, in the process that prepared it.

  std::mutex mutex;                                // Guards `files` while it is filled; entries never move.
  std::vector<std::unique_ptr<DirectFile>> files;  // As plan.files, opened at first use.

  std::string StagedPath(std::string_view name) const { return Concat(staged, "/", name); }
  absl::StatusOr<DirectFile*> Output(size_t file);
  absl::Status WriteSideFile(const std::string& name) const;
  absl::StatusOr<bool> MakeWeightFile(const CopyPlan::File& file, bool is_unedited) const;
  absl::Status CheckStaged() const;
  absl::Status CheckOutput() const;
  bool IsPreparedFor(std::string_view identity) const;
  absl::Status Clear(bool keep_weights) const;
  absl::Status WriteSideFiles() const;
  absl::Status RemoveRecords() const;
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

// May the copy get its name?
absl::Status CheckpointWriter::Impl::CheckOutput() const {
  if (!Exists(out_dir)) return absl::OkStatus();
  if (existing == Existing::kRefuse) return absl::AlreadyExistsError(Concat("output folder exists: folder=", out_dir));
  std::error_code error;
  const bool plain = fs::is_directory(fs::symlink_status(out_dir, error)) && !error;
  const bool replaceable = plain && (fs::is_empty(out_dir, error) || Exists(Concat(out_dir, "/config.json"))) && !error;
  if (!replaceable) {
    return absl::AlreadyExistsError(
        Concat("the output holds something that is no model, and is not replaced: folder=", out_dir));
  }
  if (fs::equivalent(out_dir, source->model_dir(), error) && !error) {
    return absl::InvalidArgumentError(Concat("the output is the folder of the model itself: folder=", out_dir));
  }
  return absl::OkStatus();
}

// Was all made ready for these bytes, and is it still there?
bool CheckpointWriter::Impl::IsPreparedFor(std::string_view identity) const {
  if (identity.empty()) return false;
  const absl::StatusOr<std::string> found = ReadWholeFile(StagedPath(kIdentityFile), kMaxRecordBytes);
  if (!found.ok() || *found != identity || !Exists(StagedPath(kClonedFile))) return false;
  return std::all_of(plan->files.begin(), plan->files.end(), [this](const CopyPlan::File& file) {
    std::error_code error;
    return fs::file_size(StagedPath(file.name), error) == static_cast<uintmax_t>(file.size) && !error;
  });
}

// Empties the staged folder, but for weights and what belongs to them where they are kept.
absl::Status CheckpointWriter::Impl::Clear(bool keep_weights) const {
  std::set<std::string> keep;
  if (keep_weights) {
    keep = {std::string(kClonedFile), std::string(kIdentityFile)};
    for (const CopyPlan::File& file : plan->files) keep.insert(file.name);
  } else {
    // First what says that the rest is whole.
    std::error_code ignored;
    fs::remove(StagedPath(kIdentityFile), ignored);
  }
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(staged, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (keep.contains(name) || (keep_weights && name.starts_with(kNotePrefix))) continue;
    entries.push_back(it->path());
  }
  for (const fs::path& entry : entries) {
    if (!error) fs::remove_all(entry, error);
  }
  return error ? FolderError("cannot empty an older staged folder", staged, error) : absl::OkStatus();
}

absl::Status CheckpointWriter::Impl::WriteSideFiles() const {
  for (const std::string& name : side_files) {
    std::error_code error;
    fs::create_directories(ParentOf(StagedPath(name)), error);
    if (error) return FolderError("cannot create folder", ParentOf(StagedPath(name)), error);
    BEARING_RETURN_IF_ERROR(WriteSideFile(name));
  }
  return absl::OkStatus();
}

absl::Status CheckpointWriter::Impl::RemoveRecords() const {
  std::vector<fs::path> records = {StagedPath(kIdentityFile), StagedPath(kClonedFile)};
  std::error_code error;
  for (fs::directory_iterator it(staged, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    if (it->path().filename().string().starts_with(kNotePrefix)) records.push_back(it->path());
  }
  for (const fs::path& record : records) {
    if (!error) fs::remove(record, error);
  }
  return error ? FolderError("cannot remove the notes of the staged folder", staged, error) : absl::OkStatus();
}

CheckpointWriter::CheckpointWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CheckpointWriter::~CheckpointWriter() = default;

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(const WeightFiles* source, const CopyPlan* plan,
                                                                           const std::string& out_dir, Existing existing) {
  auto impl = std::make_unique<Impl>();
  impl->source = source;
  impl->plan = plan;
  impl->out_dir = out_dir;
  while (impl->out_dir.size() > 1 && impl->out_dir.back() == '/') impl->out_dir.pop_back();
  if (impl->out_dir.empty() || impl->out_dir == "/") {
    return absl::InvalidArgumentError(Concat("bad output folder: folder=\"", out_dir, "\""));
  }
  impl->existing = existing;
  BEARING_RETURN_IF_ERROR(impl->CheckOutput());
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

absl::StatusOr<bool> CheckpointWriter::Prepare(const std::set<size_t>& unedited, std::string_view identity) {
  BEARING_RETURN_IF_ERROR(impl_->CheckOutput());
  BEARING_ASSIGN_OR_RETURN(impl_->lock, LockFolder(impl_->staged));
  // The one who held the lock before may have finished.
  BEARING_RETURN_IF_ERROR(impl_->CheckOutput());
  const bool kept = impl_->IsPreparedFor(identity);
  BEARING_RETURN_IF_ERROR(impl_->Clear(/*keep_weights=*/kept));
  BEARING_RETURN_IF_ERROR(impl_->WriteSideFiles());
  if (kept) return true;
  std::string cloned;
  for (size_t i = 0; i < impl_->plan->files.size(); ++i) {
    BEARING_ASSIGN_OR_RETURN(const bool done, impl_->MakeWeightFile(impl_->plan->files[i], unedited.contains(i)));
    if (done) absl::StrAppend(&cloned, i, "\n");
  }
  BEARING_RETURN_IF_ERROR(WriteNewFile(impl_->StagedPath(kClonedFile), cloned));
  BEARING_RETURN_IF_ERROR(WriteNewFile(impl_->StagedPath(kIdentityFile), identity));
  return false;
}

std::string CheckpointWriter::KeptNotePath(std::string_view name) const { return impl_->StagedPath(Concat(kNotePrefix, name)); }

absl::StatusOr<std::vector<std::string>> CheckpointWriter::KeptNotes() const {
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::directory_iterator it(impl_->staged, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    if (it->path().filename().string().starts_with(kNotePrefix)) paths.push_back(it->path().string());
  }
  if (error) return FolderError("cannot list folder", impl_->staged, error);
  std::sort(paths.begin(), paths.end());
  return paths;
}

absl::StatusOr<std::set<size_t>> CheckpointWriter::ClonedFiles() const {
  BEARING_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(impl_->StagedPath(kClonedFile), kMaxRecordBytes));
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
  BEARING_RETURN_IF_ERROR(impl_->CheckOutput());
  BEARING_RETURN_IF_ERROR(impl_->RemoveRecords());
  std::set<std::string> folders = {impl_->staged};
  for (const std::string& name : impl_->side_files) folders.insert(ParentOf(impl_->StagedPath(name)));
  for (const std::string& folder : folders) BEARING_RETURN_IF_ERROR(SyncFolder(folder));
  if (!Exists(impl_->out_dir)) {
    BEARING_RETURN_IF_ERROR(RenameToNew(impl_->staged, impl_->out_dir));
    return SyncFolder(ParentOf(impl_->out_dir));
  }
  BEARING_RETURN_IF_ERROR(Exchange(impl_->staged, impl_->out_dir));
  BEARING_RETURN_IF_ERROR(SyncFolder(ParentOf(impl_->out_dir)));
  // The old one is the staged folder now; a run that dies here leaves it to the next one.
  std::error_code error;
  fs::remove_all(impl_->staged, error);
  return error ? FolderError("cannot remove what was replaced", impl_->staged, error) : absl::OkStatus();
}

const std::string& CheckpointWriter::staged_folder() const { return impl_->staged; }

std::vector<std::string> CheckpointWriter::files() const {
  std::vector<std::string> names = impl_->side_files;
  for (const CopyPlan::File& file : impl_->plan->files) names.push_back(file.name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace bearing::sharding
