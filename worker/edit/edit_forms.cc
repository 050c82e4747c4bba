#include "worker/edit/edit_forms.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"
#include "worker/edit/projection.h"

namespace bearing::edit {
namespace {

using sharding::DType;
using sharding::DTypeSize;

constexpr int64_t kFormBlockBytes = 8 << 20;

bool Exists(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0;
}

absl::Status RefuseInAdapter(const EditPlan& plan, const EditSpec& spec) {
  if (spec.preserve_norms)
    return absl::UnimplementedError("an edit that preserves norms is not of low rank: use --form checkpoint");
  if (spec.addition) return absl::UnimplementedError("an addition is no product of matrices: use --form checkpoint");
  for (const auto& [index, edit] : plan.edits) {
    const std::string& name = plan.copy.tensors[index].name;
    const auto refuse = [&](std::string_view what) {
      return absl::UnimplementedError(Concat("a LoRA adapter cannot hold ", what, ": use --form checkpoint. tensor=", name));
    };
    if (edit.kind != TensorEdit::Kind::kValues) return refuse("the edit of a quantized weight");
    if (edit.matrices > 1 || name.find(".experts") != std::string::npos) return refuse("the edit of routed experts");
    if (edit.rows == 1) return refuse("the edit of a bias");
    if (!std::string_view(name).ends_with(".weight")) return refuse("this tensor");
    if (!edit.by_columns && edit.component != sharding::Component::kEmbedding) return refuse("this projector");
  }
  return absl::OkStatus();
}

// s b_k . w for every vector w that the weight writes: [k, columns] of a matrix, [k, rows] of an embedding.
absl::StatusOr<std::vector<float>> Dots(const sharding::WeightFiles& source, const TensorEdit& edit) {
  const auto at = *source.Find(edit.weight);
  const int64_t offset = source.entry(at).file_offset;
  const int64_t row_bytes = edit.columns * DTypeSize(edit.dtype);
  const int64_t step = std::max<int64_t>(1, kFormBlockBytes / row_bytes);
  const int64_t count = edit.basis->count;
  ColumnSums sums(count, edit.by_columns ? edit.columns : 0);
  std::vector<float> dots(edit.by_columns ? 0 : static_cast<size_t>(count * edit.rows));
  std::string bytes(static_cast<size_t>(std::min(step, edit.rows) * row_bytes), '\0');
  std::vector<float> values(static_cast<size_t>(edit.columns));
  for (int64_t row = 0; row < edit.rows; row += step) {
    const int64_t rows = std::min(step, edit.rows - row);
    const absl::Span<char> block(bytes.data(), static_cast<size_t>(rows * row_bytes));
    BEARING_RETURN_IF_ERROR(source.Read(at.shard, offset + row * row_bytes, block));
    if (edit.by_columns) {
      SumColumns(*edit.basis, edit.dtype, block.data(), row, rows, edit.columns, &sums);
      continue;
    }
    for (int64_t i = 0; i < rows; ++i) {
      Decode(edit.dtype, block.data() + i * row_bytes, edit.columns, values.data());
      for (int64_t k = 0; k < count; ++k) {
        double dot = 0;
        for (int64_t c = 0; c < edit.columns; ++c)
          dot += static_cast<double>(values[static_cast<size_t>(c)]) * edit.basis->vector(k)[c];
        dots[static_cast<size_t>(k * edit.rows + row + i)] = static_cast<float>(edit.strength * dot);
      }
    }
  }
  for (const double dot : sums.dots) dots.push_back(static_cast<float>(edit.strength * dot));
  return dots;
}

// The module's name in transformers: the text model of a wrapper is stored under a prefix of its own.
std::string ModuleOf(const EditPlan& plan, const std::string& tensor) {
  std::string module = tensor.substr(0, tensor.size() - std::string_view(".weight").size());
  constexpr std::string_view kStored = "language_model.model.";
  if (plan.model.family == "gemma3_text" && module.starts_with(kStored)) {
    module = Concat("model.language_model.", module.substr(kStored.size()));
  }
  return module;
}

// The negated basis as [d, k].
std::vector<float> NegatedBasis(const Basis& basis) {
  std::vector<float> values;
  for (int64_t i = 0; i < basis.d; ++i) {
    for (int64_t k = 0; k < basis.count; ++k) values.push_back(static_cast<float>(-basis.vector(k)[i]));
  }
  return values;
}

void AppendLittle(uint64_t value, int bytes, std::string* out) {
  for (int i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i) & 0xff));
}

void AppendGgufText(std::string_view text, std::string* out) {
  AppendLittle(text.size(), 8, out);
  out->append(text);
}

// Names that llama.cpp has for an architecture, where they are not ours.
std::string GgufArchitecture(const std::string& family) {
  static const std::map<std::string, std::string> kNames = {
      {"mistral", "llama"},      {"mixtral", "llama"},           {"qwen2_moe", "qwen2moe"},    {"qwen3_moe", "qwen3moe"},
      {"gemma3_text", "gemma3"}, {"deepseek_v2", "deepseek2"},   {"deepseek_v3", "deepseek2"}, {"gpt_oss", "gpt-oss"},
      {"glm4_moe", "glm4moe"},   {"qwen3_vl_moe", "qwen3vlmoe"}, {"llama4_text", "llama4"}};
  const auto found = kNames.find(family);
  return found != kNames.end() ? found->second : family;
}

absl::Status WriteInPlace(const std::string& out, std::string_view bytes) {
  const std::string staged = out + ".partial";
  std::error_code error;
  std::filesystem::remove(staged, error);
  BEARING_RETURN_IF_ERROR(sharding::WriteNewFile(staged, bytes));
  if (std::rename(staged.c_str(), out.c_str()) != 0) return sharding::ErrnoStatus("cannot rename into place", out);
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteLora(const sharding::WeightFiles& source, const EditPlan& plan, const EditSpec& spec,
                       const RecordInputs& inputs, const std::string& out) {
  BEARING_RETURN_IF_ERROR(RefuseInAdapter(plan, spec));
  if (Exists(out)) return absl::AlreadyExistsError(Concat("output folder exists: folder=", out));
  const std::string staged = out + ".partial";
  std::error_code error;
  std::filesystem::remove_all(staged, error);
  if (!error) std::filesystem::create_directories(staged, error);
  if (error)
    return absl::Status(absl::ErrnoToStatus(error.value(), "cannot create folder").code(),
                        Concat("cannot create folder: ", error.message(), " folder=", staged));

  std::vector<std::vector<float>> values;
  std::vector<sharding::SafetensorsTensor> tensors;
  nlohmann::json modules = nlohmann::json::array();
  const int64_t rank = plan.basis->count;
  for (const auto& [index, edit] : plan.edits) {
    const bool embedding = edit.component == sharding::Component::kEmbedding;
    const std::string module = ModuleOf(plan, plan.copy.tensors[index].name);
    modules.push_back(module);
    BEARING_ASSIGN_OR_RETURN(std::vector<float> dots, Dots(source, edit));
    const std::string prefix = Concat("base_model.model.", module, ".");
    values.push_back(std::move(dots));
    tensors.push_back({Concat(prefix, embedding ? "lora_embedding_A" : "lora_A.weight"),
                       DType::kF32,
                       {rank, embedding ? edit.rows : edit.columns},
                       values.back().data()});
    values.push_back(NegatedBasis(*edit.basis));
    tensors.push_back({Concat(prefix, embedding ? "lora_embedding_B" : "lora_B.weight"),
                       DType::kF32,
                       {edit.basis->d, rank},
                       values.back().data()});
  }
  const nlohmann::json config = {{"peft_type", "LORA"},
                                 {"task_type", "CAUSAL_LM"},
                                 {"base_model_name_or_path", inputs.base_model},
                                 {"r", rank},
                                 {"lora_alpha", rank},
                                 {"lora_dropout", 0.0},
                                 {"bias", "none"},
                                 {"fan_in_fan_out", false},
                                 {"inference_mode", true},
                                 {"init_lora_weights", true},
                                 {"use_rslora", false},
                                 {"target_modules", modules}};
  BEARING_RETURN_IF_ERROR(
      sharding::WriteSafetensors(Concat(staged, "/adapter_model.safetensors"), tensors, {{"format", "pt"}}));
  BEARING_RETURN_IF_ERROR(sharding::WriteNewFile(Concat(staged, "/adapter_config.json"), config.dump(2) + "\n"));
  BEARING_RETURN_IF_ERROR(WriteRecord(plan, spec, {}, inputs, staged, /*with_manifest=*/false));
  if (std::rename(staged.c_str(), out.c_str()) != 0) return sharding::ErrnoStatus("cannot rename into place", out);
  return absl::OkStatus();
}

absl::Status WriteControlVector(const sharding::EditableModel& model, const std::vector<double>& vector, int64_t layer,
                                double factor, const std::string& out) {
  if (layer < 2 || layer > model.num_layers) {
    return absl::InvalidArgumentError(
        Concat("a control vector is added behind the blocks 1, 2, ... and cannot reach this layer: "
               "layer=",
               layer, " want=2 to ", model.num_layers));
  }
  if (static_cast<int64_t>(vector.size()) != model.d_model) {
    return absl::InvalidArgumentError(
        Concat("vector has another length than the model: want=", model.d_model, " got=", vector.size()));
  }
  // Types of the format: 4 = u32, 8 = text; tensors: 0 = F32.
  std::string file = "GGUF";
  AppendLittle(3, 4, &file);
  AppendLittle(1, 8, &file);
  AppendLittle(3, 8, &file);
  AppendGgufText("general.architecture", &file);
  AppendLittle(8, 4, &file);
  AppendGgufText("controlvector", &file);
  AppendGgufText("controlvector.model_hint", &file);
  AppendLittle(8, 4, &file);
  AppendGgufText(GgufArchitecture(model.family), &file);
  AppendGgufText("controlvector.layer_count", &file);
  AppendLittle(4, 4, &file);
  AppendLittle(1, 4, &file);
  AppendGgufText(Concat("direction.", layer - 1), &file);
  AppendLittle(1, 4, &file);
  AppendLittle(vector.size(), 8, &file);
  AppendLittle(0, 4, &file);
  AppendLittle(0, 8, &file);
  file.append((32 - file.size() % 32) % 32, '\0');
  std::vector<float> values;
  for (const double value : vector) values.push_back(static_cast<float>(factor * value));
  file.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  file.append((32 - file.size() % 32) % 32, '\0');
  return WriteInPlace(out, file);
}

absl::Status WriteDirectionFile(const EditPlan& plan, const DirectionInput& input, const std::string& out) {
  const std::vector<float> basis(plan.basis->vectors.begin(), plan.basis->vectors.end());
  const std::vector<float> difference(input.mean_difference.begin(), input.mean_difference.end());
  std::vector<int64_t> shape = {plan.basis->d};
  if (plan.basis->count != 1) shape.insert(shape.begin(), plan.basis->count);
  std::vector<sharding::SafetensorsTensor> tensors = {{"direction", DType::kF32, shape, basis.data()}};
  if (!difference.empty()) {
    tensors.push_back({"mean_difference", DType::kF32, {static_cast<int64_t>(difference.size())}, difference.data()});
  }
  return sharding::WriteSafetensors(out, tensors, input.metadata);
}

}  // namespace bearing::edit
