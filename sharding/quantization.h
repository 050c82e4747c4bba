// How a checkpoint's weights are quantized, and which of its tensors are one weight.
//
// A quantized weight is stored as a value tensor with one or more companions (its scales). Everything else in Bearing speaks of
// the weight: `LogicalTensors` gives names and shapes as if nothing were quantized.
//
// Pure functions, thread-safe.
#ifndef BEARING_SHARDING_QUANTIZATION_H_
#define BEARING_SHARDING_QUANTIZATION_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"
#include "sharding/param_layout.h"

namespace bearing::sharding {

enum class QuantizedForm {
  // F8_E4M3 values [out, in] or, of fused experts, [experts, out, in]; real = value * scale, one scale a block of block_rows x
  // block_columns elements. A scale a row or
  // a tensor is a block of 1 x in or out x in.
  kFp8,
  // Microscaling FP4 (OCP MX): `X_blocks` U8 [experts, rows, columns / 32, 16], two E2M1 values a byte, low half first, and
  // `X_scales` U8 [experts, rows, columns / 32], an exponent with bias 127. The weight X is the transpose: [experts, columns,
  // rows].
  kMxfp4,
};

struct QuantizedTensor {
  QuantizedForm form = QuantizedForm::kFp8;
  std::string values;  // Names on disk.
  std::string scales;
  int64_t block_rows = 0;  // kFp8
  int64_t block_columns = 0;
};

struct Quantization {
  // By the weight's name ("X.weight", or X for kMxfp4); empty for a plain checkpoint.
  std::map<std::string, QuantizedTensor> tensors;
  // The checkpoint's tensors with every quantized weight in place of its parts (dtype BF16).
  std::vector<DiskTensor> logical;
};

// Unimplemented for a method that is not supported, naming it and what to do instead. FailedPrecondition naming the tensor for
// scales that are missing or have another shape than the values ask for.
absl::StatusOr<Quantization> FindQuantization(const nlohmann::json& config, std::string_view source,
                                              absl::Span<const DiskTensor> on_disk);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_QUANTIZATION_H_
