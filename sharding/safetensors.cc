#include "sharding/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>
#include <utility>

#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/safetensors_sax.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

constexpr int64_t kLengthBytes = 8;

absl::Status Bad(std::string_view what, std::string_view file_name, std::string_view tensor = {}) {
  return absl::DataLossError(
      Concat("bad safetensors file: ", what, " file=", file_name, tensor.empty() ? "" : " tensor=", Escaped(tensor)));
}

uint64_t DecodeLittleEndian(const std::array<char, kLengthBytes>& bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) value |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return value;
}

// Bytes of a tensor, or false on overflow.
bool TensorBytes(const SafetensorsSax::Tensor& tensor, int64_t* bytes) {
  *bytes = 1;
  for (const int64_t axis : tensor.shape) {
    if (__builtin_mul_overflow(*bytes, axis, bytes)) return false;
  }
  return !__builtin_mul_overflow(*bytes, DTypeSize(tensor.dtype), bytes);
}

// Tensors must tile the data: start at 0, follow each other, end with the file. `tensors` is sorted by offset.
absl::Status CheckTiling(const std::vector<SafetensorsSax::Tensor>& tensors, int64_t data_bytes, std::string_view file_name) {
  int64_t next = 0;
  for (const SafetensorsSax::Tensor& tensor : tensors) {
    int64_t want = 0;
    if (!TensorBytes(tensor, &want)) return Bad("shape overflows", file_name, tensor.name);
    if (tensor.begin > next) return Bad(Concat("hole before tensor: bytes=", tensor.begin - next), file_name, tensor.name);
    if (tensor.begin < next) return Bad("tensor overlaps another", file_name, tensor.name);
    if (tensor.end < tensor.begin || tensor.end - tensor.begin != want) {
      return Bad(
          Concat("data_offsets do not fit shape and dtype: begin=", tensor.begin, " end=", tensor.end, " want bytes=", want),
          file_name, tensor.name);
    }
    if (tensor.end > data_bytes) {
      return Bad(Concat("file is truncated: data bytes=", data_bytes, " needed=", tensor.end), file_name, tensor.name);
    }
    next = tensor.end;
  }
  if (next != data_bytes) return Bad(Concat("bytes after the last tensor: bytes=", data_bytes - next), file_name);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json, int64_t file_size, std::string_view file_name) {
  if (static_cast<int64_t>(json.size()) > kMaxSafetensorsHeaderBytes) return Bad("header is too large", file_name);
  if (file_size < kLengthBytes + static_cast<int64_t>(json.size())) return Bad("header ends after the file", file_name);
  if (json.empty() || json.front() != '{') return Bad("header does not start with '{'", file_name);
  // The JSON reader takes a zero byte for the end of the text; the format does not.
  if (json.find('\0') != std::string_view::npos) return Bad("zero byte in the header", file_name);

  SafetensorsSax sax(file_name);
  if (!nlohmann::json::sax_parse(json, &sax)) {
    return sax.status().ok() ? Bad("header is not valid JSON", file_name) : sax.status();
  }
  std::vector<SafetensorsSax::Tensor>& tensors = sax.tensors();
  std::stable_sort(tensors.begin(), tensors.end(), [](const SafetensorsSax::Tensor& a, const SafetensorsSax::Tensor& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });

  SafetensorsHeader header;
  header.data_begin = kLengthBytes + static_cast<int64_t>(json.size());
  BEARING_RETURN_IF_ERROR(CheckTiling(tensors, file_size - header.data_begin, file_name));
  header.entries.reserve(tensors.size());
  for (SafetensorsSax::Tensor& tensor : tensors) {
    header.entries.push_back({.name = std::move(tensor.name),
                              .dtype = tensor.dtype,
                              .shape = std::move(tensor.shape),
                              .file_offset = header.data_begin + tensor.begin,
                              .num_bytes = tensor.end - tensor.begin});
  }
  header.metadata = std::move(sax.metadata());
  header.raw_json = std::string(json);
  return header;
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<RandomAccessFile> file, OpenLocalFile(path));
  return ReadSafetensorsHeader(*file);
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const RandomAccessFile& file) {
  const std::string& path = file.name();
  const int64_t file_size = file.size();
  if (file_size < kLengthBytes) return Bad(Concat("file is too short for a header: size=", file_size), path);
  std::array<char, kLengthBytes> length_bytes;
  BEARING_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(length_bytes)));
  const uint64_t length = DecodeLittleEndian(length_bytes);
  // Before anything is allocated: the length is not to be trusted.
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return Bad(Concat("header is too large: bytes=", length, " limit=", kMaxSafetensorsHeaderBytes), path);
  }
  if (static_cast<int64_t>(length) > file_size - kLengthBytes) {
    return Bad(Concat("header ends after the file: bytes=", length, " file size=", file_size), path);
  }
  std::string json(length, '\0');
  BEARING_RETURN_IF_ERROR(file.ReadAt(kLengthBytes, absl::MakeSpan(json)));
  return ParseSafetensorsHeader(json, file_size, path);
}

}  // namespace bearing::sharding
