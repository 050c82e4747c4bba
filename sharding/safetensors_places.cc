#include "sharding/safetensors_places.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <utility>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {

SafetensorsPlaces::SafetensorsPlaces(SafetensorsPlaces&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::move(other.file_)),
      is_creator_(std::exchange(other.is_creator_, false)),
      entries_(std::move(other.entries_)) {}

SafetensorsPlaces& SafetensorsPlaces::operator=(SafetensorsPlaces&& other) noexcept {
  if (this == &other) return *this;
  if (is_creator_) ::unlink(staged().c_str());
  path_ = std::move(other.path_);
  file_ = std::move(other.file_);
  is_creator_ = std::exchange(other.is_creator_, false);
  entries_ = std::move(other.entries_);
  return *this;
}

SafetensorsPlaces::~SafetensorsPlaces() {
  if (is_creator_) ::unlink(staged().c_str());
}

absl::StatusOr<SafetensorsPlaces> SafetensorsPlaces::Create(const std::string& path,
                                                            absl::Span<const SafetensorsTensor> tensors,
                                                            const std::map<std::string, std::string>& metadata) {
  BEARING_ASSIGN_OR_RETURN(const std::string header, MakeSafetensorsHeader(tensors, metadata));
  int64_t size = static_cast<int64_t>(header.size());
  for (const SafetensorsTensor& tensor : tensors) {
    int64_t bytes = DTypeSize(tensor.dtype);
    for (const int64_t axis : tensor.shape) bytes *= axis;  // MakeSafetensorsHeader has checked each for overflow.
    if (__builtin_add_overflow(size, bytes, &size)) {
      return absl::InvalidArgumentError(Concat("tensors are larger than a file can be: file=", path));
    }
  }
  const std::string staged = path + ".partial";
  ::unlink(staged.c_str());
  BEARING_ASSIGN_OR_RETURN(FileDescriptor file, CreateNewFile(staged));
  SafetensorsPlaces places(path, std::move(file), /*is_creator=*/true);
  BEARING_RETURN_IF_ERROR(ReserveSize(places.file_, size, staged));
  BEARING_RETURN_IF_ERROR(WriteAt(places.file_, 0, header, staged));
  BEARING_ASSIGN_OR_RETURN(const SafetensorsHeader read, ReadSafetensorsHeader(staged));
  for (const SafetensorsEntry& entry : read.entries) places.entries_[entry.name] = entry;
  return places;
}

absl::StatusOr<SafetensorsPlaces> SafetensorsPlaces::Join(const std::string& path) {
  const std::string staged = path + ".partial";
  BEARING_ASSIGN_OR_RETURN(const SafetensorsHeader header, ReadSafetensorsHeader(staged));
  BEARING_ASSIGN_OR_RETURN(FileDescriptor file, OpenForWriting(staged));
  SafetensorsPlaces places(path, std::move(file), /*is_creator=*/false);
  for (const SafetensorsEntry& entry : header.entries) places.entries_[entry.name] = entry;
  return places;
}

absl::StatusOr<int64_t> SafetensorsPlaces::Locate(std::string_view tensor, int64_t first, int64_t element_bytes,
                                                  size_t num_bytes) const {
  const auto found = entries_.find(tensor);
  if (found == entries_.end()) {
    return absl::InvalidArgumentError(Concat("no such tensor: file=", path_, " tensor=", Escaped(tensor)));
  }
  const SafetensorsEntry& entry = found->second;
  const auto bytes = static_cast<int64_t>(num_bytes);
  if (element_bytes != DTypeSize(entry.dtype) || first < 0 || first > entry.num_bytes / element_bytes ||
      bytes > entry.num_bytes - first * element_bytes) {
    return absl::InvalidArgumentError(Concat("place outside of a tensor: file=", path_, " tensor=", Escaped(tensor),
                                             " shape=", ShapeText(entry.shape), " first=", first, " bytes=", bytes));
  }
  return entry.file_offset + first * element_bytes;
}

absl::Status SafetensorsPlaces::WriteBytes(std::string_view tensor, int64_t first, int64_t element_bytes,
                                           absl::Span<const char> bytes) {
  BEARING_ASSIGN_OR_RETURN(const int64_t offset, Locate(tensor, first, element_bytes, bytes.size()));
  return WriteAt(file_, offset, bytes, staged());
}

absl::Status SafetensorsPlaces::ReadBytes(std::string_view tensor, int64_t first, int64_t element_bytes,
                                          absl::Span<char> bytes) const {
  BEARING_ASSIGN_OR_RETURN(const int64_t offset, Locate(tensor, first, element_bytes, bytes.size()));
  return ReadAt(file_, offset, bytes, staged());
}

absl::Status SafetensorsPlaces::Sync() const { return SyncFile(file_, staged()); }

absl::Status SafetensorsPlaces::Finish() {
  BEARING_RETURN_IF_ERROR(Sync());
  if (std::rename(staged().c_str(), path_.c_str()) != 0) return ErrnoStatus("cannot rename into place", path_);
  is_creator_ = false;
  const std::filesystem::path parent = std::filesystem::path(path_).parent_path();
  return SyncFolder(parent.empty() ? "." : parent.string());
}

}  // namespace bearing::sharding
