#include "worker/edit/vector_forms.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string_view>
#include <system_error>

#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/safetensors.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::edit {
namespace {

using sharding::DType;

// A direction file is float32.
constexpr double kRounding = 1e-6;
constexpr int64_t kMaxVectorBytes = int64_t{1} << 28;

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

// The whole file.
std::string ControlVectorBytes(const sharding::EditableModel& model, const std::vector<double>& vector, int64_t layer,
                               double factor) {
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
  return file;
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

absl::Status CheckControlVectorLayer(int64_t layer, int64_t num_layers) {
  if (layer < 2 || layer > num_layers) {
    return absl::InvalidArgumentError(
        Concat("a control vector is added behind the blocks 1, 2, ... and cannot reach this layer: "
               "layer=",
               layer, " want=2 to ", num_layers));
  }
  return absl::OkStatus();
}

absl::Status WriteControlVector(const sharding::EditableModel& model, const std::vector<double>& vector, int64_t layer,
                                double factor, const std::string& out) {
  BEARING_RETURN_IF_ERROR(CheckControlVectorLayer(layer, model.num_layers));
  if (static_cast<int64_t>(vector.size()) != model.d_model) {
    return absl::InvalidArgumentError(
        Concat("vector has another length than the model: want=", model.d_model, " got=", vector.size()));
  }
  return WriteInPlace(out, ControlVectorBytes(model, vector, layer, factor));
}

absl::StatusOr<nlohmann::json> VerifyControlVector(const sharding::EditableModel& model, const std::vector<double>& vector,
                                                   int64_t layer, double factor, const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const std::string bytes, sharding::ReadWholeFile(path, kMaxVectorBytes));
  if (bytes != ControlVectorBytes(model, vector, layer, factor)) {
    return absl::DataLossError(Concat("bytes read back differ from those written: file=", path));
  }
  double square = 0;
  for (const double value : vector) square += factor * value * factor * value;
  if (!std::isfinite(square)) return absl::DataLossError(Concat("control vector is not finite: file=", path));
  nlohmann::json found = {{"tensor", Concat("direction.", layer - 1)}, {"norm", std::sqrt(square)}};
  BEARING_ASSIGN_OR_RETURN(found["sha256"], sharding::Sha256OfFile(path));
  return found;
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

absl::StatusOr<nlohmann::json> VerifyDirectionFile(const EditPlan& plan, const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const DirectionInput read, ReadDirectionInput(path));
  const auto differs = [&] { return absl::DataLossError(Concat("direction read back differs: file=", path)); };
  if (static_cast<int64_t>(read.directions.size()) != plan.basis->count) return differs();
  for (int64_t k = 0; k < plan.basis->count; ++k) {
    const std::vector<double>& direction = read.directions[static_cast<size_t>(k)];
    const bool same =
        std::equal(direction.begin(), direction.end(), plan.basis->vector(k), plan.basis->vector(k) + plan.basis->d,
                   [](double got, double want) { return std::abs(got - want) <= kRounding; });
    if (!same) return differs();
  }
  return nlohmann::json{{"directions", plan.basis->count}, {"sha256", read.sha256}};
}

}  // namespace bearing::edit
