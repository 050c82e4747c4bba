#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>

#include "nlohmann/json.hpp"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

absl::StatusOr<int64_t> NumBytes(const SafetensorsTensor& tensor) {
  int64_t bytes = DTypeSize(tensor.dtype);
  for (const int64_t axis : tensor.shape) {
    if (axis < 0 || __builtin_mul_overflow(bytes, axis, &bytes)) {
      return absl::InvalidArgumentError(Concat("tensor shape is negative or overflows: tensor=", tensor.name));
    }
  }
  return bytes;
}

absl::StatusOr<std::string> HeaderJson(absl::Span<const SafetensorsTensor* const> tensors,
                                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names = {"__metadata__"};
  int64_t offset = 0;
  for (const SafetensorsTensor* tensor : tensors) {
    if (!names.insert(tensor->name).second) {
      return absl::InvalidArgumentError(Concat("tensor name is reserved or used twice: tensor=", tensor->name));
    }
    BEARING_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(*tensor));
    nlohmann::ordered_json& entry = header[tensor->name];
    entry["dtype"] = DTypeName(tensor->dtype);
    entry["shape"] = tensor->shape;
    entry["data_offsets"] = {offset, offset + bytes};
    offset += bytes;
  }
  try {
    return header.dump();
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(Concat("tensor name or metadata is not UTF-8: ", error.what()));
  }
}

std::vector<const SafetensorsTensor*> InFileOrder(absl::Span<const SafetensorsTensor> tensors) {
  std::vector<const SafetensorsTensor*> sorted;
  for (const SafetensorsTensor& tensor : tensors) sorted.push_back(&tensor);
  // Wide elements first keeps every tensor aligned to its element.
  std::sort(sorted.begin(), sorted.end(), [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
    const int64_t a_size = DTypeSize(a->dtype);
    const int64_t b_size = DTypeSize(b->dtype);
    return a_size != b_size ? a_size > b_size : a->name < b->name;
  });
  return sorted;
}

}  // namespace

std::string FrameSafetensorsHeader(std::string_view json) {
  std::string framed(8, '\0');
  for (size_t i = 0; i < 8; ++i) framed[i] = static_cast<char>(uint64_t{json.size()} >> (8 * i) & 0xff);
  framed.append(json);
  return framed;
}

std::string PadSafetensorsHeader(std::string json) {
  json.append((8 - json.size() % 8) % 8, ' ');
  return json;
}

absl::StatusOr<std::string> MakeSafetensorsHeader(absl::Span<const SafetensorsTensor> tensors,
                                                  const std::map<std::string, std::string>& metadata) {
  BEARING_ASSIGN_OR_RETURN(const std::string json, HeaderJson(InFileOrder(tensors), metadata));
  return FrameSafetensorsHeader(PadSafetensorsHeader(json));
}

absl::Status WriteSafetensors(const std::string& path, absl::Span<const SafetensorsTensor> tensors,
                              const std::map<std::string, std::string>& metadata) {
  const std::vector<const SafetensorsTensor*> sorted = InFileOrder(tensors);
  for (const SafetensorsTensor* tensor : sorted) {
    BEARING_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(*tensor));
    if (bytes > 0 && tensor->data == nullptr) {
      return absl::InvalidArgumentError(Concat("tensor has no data: tensor=", tensor->name));
    }
  }
  BEARING_ASSIGN_OR_RETURN(const std::string framed, MakeSafetensorsHeader(tensors, metadata));

  const std::string staged = path + ".partial";
  ::unlink(staged.c_str());
  {
    BEARING_ASSIGN_OR_RETURN(const FileDescriptor file, CreateNewFile(staged));
    BEARING_RETURN_IF_ERROR(WriteAt(file, 0, framed, staged));
    int64_t offset = static_cast<int64_t>(framed.size());
    for (const SafetensorsTensor* tensor : sorted) {
      BEARING_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(*tensor));
      BEARING_RETURN_IF_ERROR(WriteAt(
          file, offset, absl::MakeConstSpan(static_cast<const char*>(tensor->data), static_cast<size_t>(bytes)), staged));
      offset += bytes;
    }
    BEARING_RETURN_IF_ERROR(SyncFile(file, staged));
  }
  if (std::rename(staged.c_str(), path.c_str()) != 0) return ErrnoStatus("cannot rename into place", path);
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return SyncFolder(parent.empty() ? "." : parent.string());
}

}  // namespace bearing::sharding
