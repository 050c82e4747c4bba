// The safetensors file format, read strictly.
//
// Layout: u64 little-endian header length N, JSON of N bytes, data. A header is accepted only if every rule of the format
// holds: it starts with '{', keys are unique, shapes and offsets are non-negative integers whose product and size do not
// overflow, ranges start at 0, follow each other without hole or overlap and end at the end of the file, metadata is a
// map of strings. Anything else is DataLoss naming the file and the tensor, but a dtype that the format knows and this
// reader does not is Unimplemented. Tensor names are never used as paths.
//
// The functions are thread-safe.
#ifndef BEARING_SHARDING_SAFETENSORS_H_
#define BEARING_SHARDING_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/dtype.h"
#include "sharding/random_access_file.h"

namespace bearing::sharding {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr int64_t kMaxSafetensorsTensors = 1'000'000;

struct SafetensorsEntry {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  // Byte offset of the tensor in the file (header included) and its length.
  int64_t file_offset = 0;
  int64_t num_bytes = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // In the order of their data.
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  // 8 + N.
  // The N bytes of the header as they stand in the file, so that an edited copy can keep them.
  std::string raw_json;
};

// Parses the header bytes `json` of a file of `file_size` bytes. `file_name` is only for messages.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json, int64_t file_size, std::string_view file_name);

// Opens `path`, reads and parses its header.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const std::string& path);

// The same for a file that is open.
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const RandomAccessFile& file);

// One tensor to write; `data` is borrowed until WriteSafetensors returns.
struct SafetensorsTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  const void* data = nullptr;
};

// What stands before the data: the length and `json`, as it is.
std::string FrameSafetensorsHeader(std::string_view json);

// `json` with spaces up to a multiple of 8 bytes, so that the data after it is aligned.
std::string PadSafetensorsHeader(std::string json);

// What stands before the data of a file with these tensors (`data` is not looked at): by descending element size, then name;
// padded to a multiple of 8. InvalidArgument for a bad shape, and a name that is used twice or is not UTF-8.
absl::StatusOr<std::string> MakeSafetensorsHeader(absl::Span<const SafetensorsTensor> tensors,
                                                  const std::map<std::string, std::string>& metadata);

// Writes a small file whole (directions, means, traces): tensors by descending element size, then name; header padded to a
// multiple of 8. Written beside `path`, synced, then renamed, so that a reader never sees half a file.
absl::Status WriteSafetensors(const std::string& path, absl::Span<const SafetensorsTensor> tensors,
                              const std::map<std::string, std::string>& metadata);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_SAFETENSORS_H_
