#include "sharding/checkpoint_writer.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <set>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "sharding/concat.h"
#include "sharding/copy_plan.h"
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

}  // namespace

struct CheckpointWriter::Impl {
  const CheckpointReader* reader;
  std::string out_dir;
  std::string staged;
  CopyPlan plan;
  std::vector<std::string> side_files;
  std::unordered_map<std::string, size_t> region_of;  // Tensor to index in plan.regions.

  std::mutex mutex;                   // Guards `files` while it is filled; entries never move.
  std::vector<FileDescriptor> files;  // As plan.files, opened at first use.

  std::string StagedPath(std::string_view name) const { return Concat(staged, "/", name); }
  std::string SourcePath(std::string_view name) const { return Concat(reader->model_dir(), "/", name); }
  absl::StatusOr<const FileDescriptor*> Output(size_t file);
  absl::Status WriteSideFile(const std::string& name) const;
  absl::Status WriteWeightFile(const CopyPlan::File& file) const;
  absl::Status CheckStaged() const;
};

absl::StatusOr<const FileDescriptor*> CheckpointWriter::Impl::Output(size_t file) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!files[file].is_open()) {
    BEARING_ASSIGN_OR_RETURN(files[file], OpenForWriting(StagedPath(plan.files[file].name)));
  }
  return &files[file];
}

absl::Status CheckpointWriter::Impl::WriteSideFile(const std::string& name) const {
  const std::string to_path = StagedPath(name);
  if (const auto text = plan.side_texts.find(name); text != plan.side_texts.end()) return WriteNewFile(to_path, text->second);

  const std::string from_path = SourcePath(name);
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor from, OpenForReading(from_path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, FileSize(from, from_path));
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor to, CreateNewFile(to_path));
  BEARING_RETURN_IF_ERROR(CopyBytes(from, 0, from_path, to, 0, to_path, size));
  return SyncFile(to, to_path);
}

absl::Status CheckpointWriter::Impl::WriteWeightFile(const CopyPlan::File& file) const {
  const std::string path = StagedPath(file.name);
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor to, CreateNewFile(path));
  BEARING_RETURN_IF_ERROR(ReserveSize(to, file.size, path));
  BEARING_RETURN_IF_ERROR(WriteAt(to, 0, file.framed_header, path));
  return SyncFile(to, path);
}

// A last look before the name becomes public: every file is there, whole, and readable as what it claims to be.
absl::Status CheckpointWriter::Impl::CheckStaged() const {
  for (const CopyPlan::File& file : plan.files) {
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

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(const CheckpointReader* reader,
                                                                           const std::string& out_dir,
                                                                           const WriterOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->reader = reader;
  impl->out_dir = out_dir;
  while (impl->out_dir.size() > 1 && impl->out_dir.back() == '/') impl->out_dir.pop_back();
  if (impl->out_dir.empty() || impl->out_dir == "/") {
    return absl::InvalidArgumentError(Concat("bad output folder: folder=\"", out_dir, "\""));
  }
  if (Exists(impl->out_dir)) return absl::AlreadyExistsError(Concat("output folder exists: folder=", impl->out_dir));
  impl->staged = impl->out_dir + ".partial";
  BEARING_ASSIGN_OR_RETURN(impl->plan, MakeCopyPlan(*reader, options.untie));
  BEARING_ASSIGN_OR_RETURN(impl->side_files, FindSideFiles(reader->model_dir()));
  for (const auto& [name, text] : impl->plan.side_texts) {
    if (std::find(impl->side_files.begin(), impl->side_files.end(), name) == impl->side_files.end()) {
      impl->side_files.push_back(name);
    }
  }
  for (size_t i = 0; i < impl->plan.regions.size(); ++i) impl->region_of.emplace(impl->plan.regions[i].tensor, i);
  impl->files.resize(impl->plan.files.size());
  return std::unique_ptr<CheckpointWriter>(new CheckpointWriter(std::move(impl)));
}

absl::Status CheckpointWriter::Prepare() {
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
  for (const CopyPlan::File& file : impl_->plan.files) BEARING_RETURN_IF_ERROR(impl_->WriteWeightFile(file));
  return absl::OkStatus();
}

absl::Status CheckpointWriter::CopyUnedited(const std::vector<std::string>& edited, int rank, int ranks) {
  if (ranks < 1 || rank < 0 || rank >= ranks) {
    return absl::InvalidArgumentError(Concat("bad rank: rank=", rank, " ranks=", ranks));
  }
  for (const std::string& tensor : edited) {
    if (!impl_->region_of.contains(tensor)) {
      return absl::NotFoundError(Concat("output has no such tensor: tensor=", Escaped(tensor)));
    }
  }
  for (const CopyRegion& region : RegionsOfRank(impl_->plan, {edited.begin(), edited.end()}, rank, ranks)) {
    BEARING_ASSIGN_OR_RETURN(const FileDescriptor* const to, impl_->Output(region.file));
    BEARING_RETURN_IF_ERROR(CopyBytes(impl_->reader->file(region.source_shard), region.source_offset, *to, region.offset,
                                      impl_->StagedPath(impl_->plan.files[region.file].name), region.num_bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckpointWriter::WriteRows(std::string_view tensor, int64_t row_begin, absl::Span<const char> bytes) {
  const auto found = impl_->region_of.find(std::string(tensor));
  if (found == impl_->region_of.end()) {
    return absl::NotFoundError(Concat("output has no such tensor: tensor=", Escaped(tensor)));
  }
  const CopyRegion& region = impl_->plan.regions[found->second];
  const int64_t row_bytes = region.rows == 0 ? 0 : region.num_bytes / region.rows;
  const auto size = static_cast<int64_t>(bytes.size());
  if (row_begin < 0 || row_begin > region.rows || (row_bytes == 0 ? size != 0 : size % row_bytes != 0) ||
      (row_bytes > 0 && size / row_bytes > region.rows - row_begin)) {
    return absl::InvalidArgumentError(Concat("rows do not fit the tensor: tensor=", tensor, " rows=", region.rows,
                                             " row bytes=", row_bytes, " begin=", row_begin, " bytes=", bytes.size()));
  }
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor* const to, impl_->Output(region.file));
  return WriteAt(*to, region.offset + row_begin * row_bytes, bytes, impl_->StagedPath(impl_->plan.files[region.file].name));
}

absl::Status CheckpointWriter::Sync() {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  for (size_t i = 0; i < impl_->files.size(); ++i) {
    if (!impl_->files[i].is_open()) continue;
    BEARING_RETURN_IF_ERROR(SyncFile(impl_->files[i], impl_->StagedPath(impl_->plan.files[i].name)));
  }
  return absl::OkStatus();
}

absl::Status CheckpointWriter::Commit() {
  BEARING_RETURN_IF_ERROR(impl_->CheckStaged());
  std::set<std::string> folders = {impl_->staged};
  for (const std::string& name : impl_->side_files) folders.insert(ParentOf(impl_->StagedPath(name)));
  for (const std::string& folder : folders) BEARING_RETURN_IF_ERROR(SyncFolder(folder));
  BEARING_RETURN_IF_ERROR(RenameToNew(impl_->staged, impl_->out_dir));
  return SyncFolder(ParentOf(impl_->out_dir));
}

std::vector<std::string> CheckpointWriter::files() const {
  std::vector<std::string> names = impl_->side_files;
  for (const CopyPlan::File& file : impl_->plan.files) names.push_back(file.name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace bearing::sharding
