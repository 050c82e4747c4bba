// A safetensors file whose values come in any order and need not fit in memory: sizes are known first, then every value is
// written at its place. Several processes that share a file system may fill one file.
//
// The file has the name PATH.partial until Finish gives it its own, so a file of that name is always whole. Places that nobody
// wrote hold zeros. Errors name the file. Not thread-safe.
#ifndef BEARING_SHARDING_SAFETENSORS_PLACES_H_
#define BEARING_SHARDING_SAFETENSORS_PLACES_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/posix_file.h"
#include "sharding/safetensors.h"

namespace bearing::sharding {

class SafetensorsPlaces {
 public:
  // Writes the header and takes the room of all values: ResourceExhausted on a full disk. A file that an earlier run left
  // unfinished is removed. The `data` of the tensors is not looked at.
  static absl::StatusOr<SafetensorsPlaces> Create(const std::string& path, absl::Span<const SafetensorsTensor> tensors,
                                                  const std::map<std::string, std::string>& metadata);

  // The file that another process has created.
  static absl::StatusOr<SafetensorsPlaces> Join(const std::string& path);

  SafetensorsPlaces(SafetensorsPlaces&& other) noexcept;
  SafetensorsPlaces& operator=(SafetensorsPlaces&& other) noexcept;
  // The creator removes the file if it was not finished.
  ~SafetensorsPlaces();

  // Elements from `first` on, in the order of the tensor's elements. InvalidArgument for a place outside of it.
  template <typename T>
  absl::Status Write(std::string_view tensor, int64_t first, absl::Span<const T> values) {
    return WriteBytes(tensor, first, sizeof(T),
                      absl::MakeConstSpan(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
  }
  template <typename T>
  absl::Status Read(std::string_view tensor, int64_t first, absl::Span<T> values) const {
    return ReadBytes(tensor, first, sizeof(T),
                     absl::MakeSpan(reinterpret_cast<char*>(values.data()), values.size() * sizeof(T)));
  }

  // What this process wrote is durable. Of those that joined; Finish does it for the creator.
  absl::Status Sync() const;

  // Of the creator: gives the file its name.
  absl::Status Finish();

 private:
  SafetensorsPlaces(std::string path, FileDescriptor file, bool is_creator)
      : path_(std::move(path)), file_(std::move(file)), is_creator_(is_creator) {}

  absl::Status WriteBytes(std::string_view tensor, int64_t first, int64_t element_bytes, absl::Span<const char> bytes);
  absl::Status ReadBytes(std::string_view tensor, int64_t first, int64_t element_bytes, absl::Span<char> bytes) const;

  // Where the bytes lie in the file.
  absl::StatusOr<int64_t> Locate(std::string_view tensor, int64_t first, int64_t element_bytes, size_t num_bytes) const;
  std::string staged() const { return path_ + ".partial"; }

  std::string path_;
  FileDescriptor file_;
  bool is_creator_ = false;
  std::map<std::string, SafetensorsEntry, std::less<>> entries_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_SAFETENSORS_PLACES_H_
