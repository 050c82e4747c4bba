#include "worker/edit/direction_input.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/safetensors.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "worker/edit/projection.h"
#include "worker/edit/torch_archive.h"

namespace bearing::edit {
namespace {

using sharding::DType;

constexpr int64_t kMaxTensorBytes = int64_t{1} << 30;
// Of the length of a direction; less left of it than this is noise.
constexpr double kSmallestUnshared = 1e-3;

absl::Status CheckFinite(const std::vector<double>& values, const std::string& path, std::string_view tensor) {
  for (const double value : values) {
    if (!std::isfinite(value))
      return absl::InvalidArgumentError(Concat("vector holds NaN or Inf: file=", path, " tensor=", tensor));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> ReadValues(const std::string& path, const sharding::SafetensorsEntry& entry) {
  if (entry.num_bytes > kMaxTensorBytes || entry.num_bytes == 0) {
    return absl::InvalidArgumentError(Concat("tensor is empty or too large: file=", path, " tensor=", entry.name));
  }
  std::string bytes(static_cast<size_t>(entry.num_bytes), '\0');
  BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::OpenForReading(path));
  BEARING_RETURN_IF_ERROR(sharding::ReadAt(file, entry.file_offset, absl::MakeSpan(bytes), path));
  const int64_t count = entry.num_bytes / sharding::DTypeSize(entry.dtype);
  std::vector<double> values(static_cast<size_t>(count));
  if (entry.dtype == DType::kF64) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
  } else if (entry.dtype == DType::kF32 || entry.dtype == DType::kF16 || entry.dtype == DType::kBF16) {
    std::vector<float> narrow(values.size());
    Decode(entry.dtype, bytes.data(), count, narrow.data());
    values.assign(narrow.begin(), narrow.end());
  } else {
    return absl::InvalidArgumentError(Concat("tensor must be F64, F32, F16 or BF16: file=", path, " tensor=", entry.name,
                                             " got=", sharding::DTypeName(entry.dtype)));
  }
  BEARING_RETURN_IF_ERROR(CheckFinite(values, path, entry.name));
  return values;
}

absl::Status AppendRows(const std::vector<int64_t>& shape, const std::vector<double>& values, const std::string& path,
                        std::vector<std::vector<double>>* rows) {
  if (shape.empty() || shape.size() > 2) {
    return absl::InvalidArgumentError(Concat("direction must be [d_model] or [k, d_model]: file=", path, " got=[",
                                             std::string(absl::StrJoin(shape, ", ")), "]"));
  }
  const int64_t d = shape.back();
  for (size_t at = 0; at < values.size(); at += static_cast<size_t>(d)) {
    rows->emplace_back(values.begin() + static_cast<std::ptrdiff_t>(at), values.begin() + static_cast<std::ptrdiff_t>(at) + d);
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<int64_t> DirectionInput::Integer(const std::string& key) const {
  const auto found = metadata.find(key);
  int64_t value = 0;
  if (found == metadata.end() || !absl::SimpleAtoi(found->second, &value)) return std::nullopt;
  return value;
}

absl::StatusOr<DirectionInput> ReadDirectionInput(const std::string& path) {
  DirectionInput input;
  BEARING_ASSIGN_OR_RETURN(input.sha256, sharding::Sha256OfFile(path));
  if (path.ends_with(".pt") || path.ends_with(".pth")) {
    BEARING_ASSIGN_OR_RETURN(const ArchivedTensor tensor, ReadTorchTensor(path));
    BEARING_RETURN_IF_ERROR(CheckFinite(tensor.values, path, "direction"));
    BEARING_RETURN_IF_ERROR(AppendRows(tensor.shape, tensor.values, path, &input.directions));
    // The reference keeps the mean difference itself.
    if (input.directions.size() == 1) input.mean_difference = input.directions.front();
    return input;
  }
  BEARING_ASSIGN_OR_RETURN(const sharding::SafetensorsHeader header, sharding::ReadSafetensorsHeader(path));
  input.metadata = header.metadata;
  for (const sharding::SafetensorsEntry& entry : header.entries) {
    if (entry.name != "direction" && entry.name != "mean_difference") continue;
    BEARING_ASSIGN_OR_RETURN(std::vector<double> values, ReadValues(path, entry));
    if (entry.name == "direction") {
      BEARING_RETURN_IF_ERROR(AppendRows(entry.shape, values, path, &input.directions));
    } else {
      input.mean_difference = std::move(values);
    }
  }
  if (input.directions.empty()) {
    return absl::InvalidArgumentError(Concat("no tensor named \"direction\": file=", path));
  }
  return input;
}

absl::StatusOr<std::vector<double>> ReadNegativeMean(const std::string& path, std::optional<int64_t> layer,
                                                     std::optional<int64_t> position) {
  BEARING_ASSIGN_OR_RETURN(const sharding::SafetensorsHeader header, sharding::ReadSafetensorsHeader(path));
  for (const sharding::SafetensorsEntry& entry : header.entries) {
    if (entry.name != "negative_mean") continue;
    BEARING_ASSIGN_OR_RETURN(std::vector<double> values, ReadValues(path, entry));
    if (entry.shape.size() == 1) return values;
    if (entry.shape.size() != 3) break;
    const int64_t positions = entry.shape[0];
    const int64_t layers = entry.shape[1];
    const int64_t d = entry.shape[2];
    if (!layer || !position || *layer < 0 || *layer >= layers || *position >= 0 || *position < -positions) {
      return absl::InvalidArgumentError(Concat("the direction must name a layer and position that this file has: file=", path,
                                               " positions=", positions, " layers=", layers,
                                               " layer=", layer ? Concat(*layer) : "unknown",
                                               " position=", position ? Concat(*position) : "unknown"));
    }
    const auto begin = values.begin() + ((positions + *position) * layers + *layer) * d;
    return std::vector<double>(begin, begin + d);
  }
  return absl::InvalidArgumentError(
      Concat("no tensor named \"negative_mean\" of [d_model] or [position, layer, d_model]: file=", path));
}

absl::StatusOr<std::vector<double>> WithoutSharedPart(const std::vector<double>& direction, const std::vector<double>& mean) {
  if (direction.size() != mean.size()) {
    return absl::InvalidArgumentError(
        Concat("direction and negative mean have different lengths: ", direction.size(), " and ", mean.size()));
  }
  const double shared = std::inner_product(direction.begin(), direction.end(), mean.begin(), 0.0);
  const double length = std::inner_product(mean.begin(), mean.end(), mean.begin(), 0.0);
  const double before = std::inner_product(direction.begin(), direction.end(), direction.begin(), 0.0);
  if (!(length > 0)) return absl::InvalidArgumentError("the negative mean is zero");
  std::vector<double> rest = direction;
  for (size_t i = 0; i < rest.size(); ++i) rest[i] -= shared / length * mean[i];
  const double left = std::inner_product(rest.begin(), rest.end(), rest.begin(), 0.0);
  if (!(left > kSmallestUnshared * kSmallestUnshared * before)) {
    return absl::InvalidArgumentError("the direction is all but parallel to the negative mean: nothing is left of it");
  }
  return rest;
}

}  // namespace bearing::edit
