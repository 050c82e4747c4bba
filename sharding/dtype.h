// Element types of the safetensors format.
#ifndef BEARING_SHARDING_DTYPE_H_
#define BEARING_SHARDING_DTYPE_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace bearing::sharding {

enum class DType {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64,
};

// Bytes of one element.
int64_t DTypeSize(DType dtype);

// The name in a safetensors header, e.g. "BF16".
std::string_view DTypeName(DType dtype);

// nullopt for a name that this reader does not support.
std::optional<DType> DTypeFromName(std::string_view name);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_DTYPE_H_
