#include "sharding/quantization.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_join.h"
#include "sharding/concat.h"
#include "sharding/json_text.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

constexpr int64_t kMxfp4Group = 32;

struct Method {
  std::optional<std::string> name;  // Of `quant_method`; nullopt for a plain checkpoint.
  int64_t block_rows = 0;           // 0: not by blocks.
  int64_t block_columns = 0;
};

absl::Status ReadBlockSize(const nlohmann::json& size, const JsonFields& fields, std::string_view key, Method* method) {
  if (!size.is_array() || size.size() != 2 || !size[0].is_number_integer() || !size[1].is_number_integer() ||
      size[0].get<int64_t>() < 1 || size[1].get<int64_t>() < 1 || size[0].get<int64_t>() > 65536 ||
      size[1].get<int64_t>() > 65536) {
    return fields.Invalid(key, "want two positive sizes");
  }
  method->block_rows = size[0].get<int64_t>();
  method->block_columns = size[1].get<int64_t>();
  return absl::OkStatus();
}

// compressed-tensors: every group must hold 8-bit floats with symmetric scales.
absl::Status CheckCompressedTensors(const JsonFields& fields, Method* method) {
  BEARING_ASSIGN_OR_RETURN(const std::optional<JsonFields> groups, fields.Object("config_groups"));
  const nlohmann::json* all = fields.Find("config_groups");
  if (!groups || all->empty()) return fields.Invalid("config_groups", "want at least one group");
  for (const auto& [name, group] : all->items()) {
    const nlohmann::json weights = group.is_object() ? group.value("weights", nlohmann::json()) : nlohmann::json();
    const auto is = [&weights](const char* key, const nlohmann::json& want) {
      const auto found = weights.find(key);  // Of any type.
      return found != weights.end() && *found == want;
    };
    const bool is_object = weights.is_object();
    if (!is_object || !is("num_bits", 8) || !is("type", "float") || (weights.contains("symmetric") && !is("symmetric", true))) {
      return fields.Unsupported("config_groups",
                                Concat("group ", name, " of compressed tensors (supported: symmetric 8-bit floats)"));
    }
    if (is("strategy", "block")) {
      BEARING_RETURN_IF_ERROR(
          ReadBlockSize(weights.value("block_structure", nlohmann::json()), fields, "config_groups", method));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Method> FindMethod(const nlohmann::json& config, std::string_view source) {
  Method method;
  const JsonFields file(config, source);
  if (file.Has("compression_config")) return file.Unsupported("compression_config", "compressed weights");
  BEARING_ASSIGN_OR_RETURN(const std::optional<JsonFields> fields, file.Object("quantization_config"));
  if (!fields) return method;
  BEARING_ASSIGN_OR_RETURN(const std::string name, fields->String("quant_method"));
  method.name = name;
  if (name == "fp8") {
    if (const nlohmann::json* size = fields->Find("weight_block_size")) {
      BEARING_RETURN_IF_ERROR(ReadBlockSize(*size, *fields, "weight_block_size", &method));
    }
    return method;
  }
  if (name == "compressed-tensors") {
    BEARING_RETURN_IF_ERROR(CheckCompressedTensors(*fields, &method));
    return method;
  }
  if (name == "fbgemm_fp8" || name == "mxfp4") return method;
  if (name == "awq" || name == "gptq" || name == "bitsandbytes") {
    return absl::UnimplementedError(Concat(
        "weights quantized with ", name, " cannot be edited: edit the unquantized base model, then quantize the result with ",
        name, " again; or use --form lora on the base model and load the adapter over the quantized one. file=", source));
  }
  return absl::UnimplementedError(Concat("weights quantized with ", Escaped(name),
                                         " cannot be edited (supported: fp8, fbgemm_fp8, compressed-tensors with 8-bit floats, "
                                         "mxfp4): edit the unquantized base model and quantize the result. file=",
                                         source));
}

int64_t Blocks(int64_t length, int64_t block) { return (length + block - 1) / block; }

// How the scales of `values` are laid out. Fused experts have an axis in front of both.
absl::StatusOr<QuantizedTensor> MatchFp8(const DiskTensor& values, const DiskTensor& scales, const Method& method) {
  QuantizedTensor tensor{.form = QuantizedForm::kFp8, .values = values.name, .scales = scales.name};
  const size_t axes = values.shape.size();
  if (axes != 2 && axes != 3) {
    return absl::UnimplementedError(
        Concat("quantized tensor must have two or three axes: tensor=", values.name, " shape=", ShapeText(values.shape)));
  }
  if (scales.dtype != DType::kF32 && scales.dtype != DType::kBF16 && scales.dtype != DType::kF16) {
    return absl::FailedPreconditionError(
        Concat("scales must be F32, BF16 or F16: tensor=", scales.name, " got=", DTypeName(scales.dtype)));
  }
  const int64_t out = values.shape[axes - 2];
  const int64_t in = values.shape[axes - 1];
  const auto behind_experts = [&](std::vector<int64_t> shape) {
    if (axes == 3) shape.insert(shape.begin(), values.shape[0]);
    return shape;
  };
  const std::vector<int64_t>& got = scales.shape;
  if (method.block_rows > 0) {
    tensor.block_rows = method.block_rows;
    tensor.block_columns = method.block_columns;
    const std::vector<int64_t> want = behind_experts({Blocks(out, method.block_rows), Blocks(in, method.block_columns)});
    if (got == want) return tensor;
    return absl::FailedPreconditionError(Concat("scales have another shape than the blocks ask for: tensor=", scales.name,
                                                " want=", ShapeText(want), " got=", ShapeText(got)));
  }
  tensor.block_columns = std::max<int64_t>(in, 1);
  const bool is_single = axes == 2 && (got.empty() || got == std::vector<int64_t>{1});
  if (is_single || (got == behind_experts({1, 1}) && out != 1)) {
    tensor.block_rows = std::max<int64_t>(out, 1);
    return tensor;
  }
  tensor.block_rows = 1;
  if (got == behind_experts({out}) || got == behind_experts({out, 1})) return tensor;
  if (axes == 3 && (got == behind_experts({1, in}) || got == behind_experts({in, 1}))) {
    return absl::UnimplementedError(
        Concat("fused 8-bit experts with a scale a column ([experts, in, out], as fbgemm_fp8 stores Llama 4) cannot be edited: "
               "edit the unquantized base model and quantize the result. tensor=",
               values.name));
  }
  return absl::FailedPreconditionError(Concat("scales must be one a matrix or one a row: tensor=", scales.name,
                                              " want=", ShapeText(behind_experts({out, 1})), " got=", ShapeText(got)));
}

absl::StatusOr<QuantizedTensor> MatchMxfp4(const DiskTensor& blocks, const DiskTensor& scales) {
  QuantizedTensor tensor{.form = QuantizedForm::kMxfp4, .values = blocks.name, .scales = scales.name};
  const bool fits = blocks.dtype == DType::kU8 && scales.dtype == DType::kU8 && blocks.shape.size() == 4 &&
                    scales.shape.size() == 3 && blocks.shape[3] == kMxfp4Group / 2 &&
                    std::equal(scales.shape.begin(), scales.shape.end(), blocks.shape.begin());
  if (fits) return tensor;
  return absl::FailedPreconditionError(
      Concat("MXFP4 tensor must be U8 [experts, rows, groups, 16] with scales U8 [experts, rows, groups]: tensor=", blocks.name,
             " shape=", ShapeText(blocks.shape), " scales=", ShapeText(scales.shape)));
}

bool IsFp8(DType dtype) { return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2; }

}  // namespace

absl::StatusOr<Quantization> FindQuantization(const nlohmann::json& config, std::string_view source,
                                              absl::Span<const DiskTensor> on_disk) {
  BEARING_ASSIGN_OR_RETURN(const Method method, FindMethod(config, source));
  std::unordered_map<std::string_view, const DiskTensor*> by_name;
  for (const DiskTensor& tensor : on_disk) by_name.emplace(tensor.name, &tensor);
  const auto find = [&](const std::string& name) -> const DiskTensor* {
    const auto found = by_name.find(name);
    return found == by_name.end() ? nullptr : found->second;
  };

  Quantization result;
  std::set<std::string_view> companions;
  for (const DiskTensor& tensor : on_disk) {
    constexpr std::string_view kBlocks = "_blocks";
    if (method.name == "mxfp4" && tensor.name.ends_with(kBlocks)) {
      const std::string weight = tensor.name.substr(0, tensor.name.size() - kBlocks.size());
      const DiskTensor* scales = find(weight + "_scales");
      if (scales == nullptr) {
        return absl::FailedPreconditionError(
            Concat("quantized tensor has no scales: tensor=", tensor.name, " want=", weight, "_scales"));
      }
      BEARING_ASSIGN_OR_RETURN(result.tensors[weight], MatchMxfp4(tensor, *scales));
      companions.insert(scales->name);
      result.logical.push_back({weight, DType::kBF16, {tensor.shape[0], tensor.shape[2] * kMxfp4Group, tensor.shape[1]}});
      continue;
    }
    if (!IsFp8(tensor.dtype)) continue;
    if (!method.name || method.name == "mxfp4") {
      return absl::FailedPreconditionError(
          Concat("tensor is quantized, and config.json has no quantization_config for it: tensor=", tensor.name));
    }
    if (tensor.dtype != DType::kF8E4M3) {
      return absl::UnimplementedError(
          Concat("quantized tensor has another type than F8_E4M3: tensor=", tensor.name, " got=", DTypeName(tensor.dtype)));
    }
    const DiskTensor* scales = nullptr;
    for (const std::string_view suffix : {"_scale_inv", "_scale"}) {
      if (scales == nullptr) scales = find(Concat(tensor.name, suffix));
    }
    if (scales == nullptr) {
      return absl::FailedPreconditionError(Concat("quantized tensor has no scales: tensor=", tensor.name, " want=", tensor.name,
                                                  "_scale_inv or ", tensor.name, "_scale"));
    }
    BEARING_ASSIGN_OR_RETURN(result.tensors[tensor.name], MatchFp8(tensor, *scales, method));
    companions.insert(scales->name);
  }
  for (const DiskTensor& tensor : on_disk) {
    if (companions.contains(tensor.name) || (method.name == "mxfp4" && tensor.name.ends_with("_blocks"))) continue;
    // Scales of activations and of the key-value cache are no part of the weights.
    const bool activation_scale = method.name && (tensor.name.ends_with(".input_scale") || tensor.name.ends_with(".k_scale") ||
                                                  tensor.name.ends_with(".v_scale"));
    if (activation_scale) continue;
    result.logical.push_back(tensor);
    if (IsFp8(tensor.dtype)) result.logical.back().dtype = DType::kBF16;
  }
  return result;
}

}  // namespace bearing::sharding
