#include "worker/edit/edit_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

#include "sharding/concat.h"
#include "sharding/json_text.h"
#include "sharding/status_macros.h"

namespace bearing::edit {
namespace {

using sharding::DType;
using sharding::EditableModel;
using sharding::QuantizedForm;
using sharding::ResidualWriter;
using sharding::WeightFiles;

// A direction of which less than this is left once those before it are taken out adds nothing but noise.
constexpr double kSmallestRemainder = 1e-6;

double Norm(const std::vector<double>& vector) {
  double sum = 0;
  for (const double value : vector) sum += value * value;
  return std::sqrt(sum);
}

// The gain of a norm, as a factor of each element.
absl::StatusOr<std::vector<double>> ReadGain(const WeightFiles& source, const EditableModel& model, const std::string& name) {
  const WeightFiles::Location* at = source.Find(name);
  if (at == nullptr) return absl::FailedPreconditionError(Concat("tensor is missing from the checkpoint: tensor=", name));
  const sharding::SafetensorsEntry& entry = source.entry(*at);
  const bool known = entry.dtype == DType::kF32 || entry.dtype == DType::kF16 || entry.dtype == DType::kBF16;
  if (!known || entry.shape != std::vector<int64_t>{model.d_model}) {
    return absl::FailedPreconditionError(Concat("gain must be F32, F16 or BF16 [", model.d_model, "]: tensor=", name));
  }
  std::string bytes(static_cast<size_t>(entry.num_bytes), '\0');
  BEARING_RETURN_IF_ERROR(source.Read(at->shard, entry.file_offset, absl::MakeSpan(bytes)));
  std::vector<float> values(static_cast<size_t>(model.d_model));
  Decode(entry.dtype, bytes.data(), model.d_model, values.data());
  std::vector<double> gain(values.begin(), values.end());
  if (model.unit_offset_norm) {
    for (double& value : gain) value += 1.0;
  }
  return gain;
}

absl::Status OutsideTheModel(std::string_view what, int64_t layer, int64_t num_layers) {
  return absl::InvalidArgumentError(Concat(what, " is outside the model: layer=", layer, " layers=", num_layers));
}

class Planner {
 public:
  Planner(const WeightFiles& source, const EditSpec& spec) : source_(source), spec_(spec) {}
  absl::StatusOr<EditPlan> Make();

 private:
  absl::Status CheckSpec() const;
  absl::StatusOr<std::shared_ptr<const Basis>> BasisBehind(const ResidualWriter& writer);
  absl::Status AddWriter(const ResidualWriter& writer);
  absl::Status AddAddition();
  absl::Status AddBiases(int64_t layer, const std::vector<double>& vector);
  absl::Status WidenMxfp4();
  absl::Status IndexOutputs();

  const WeightFiles& source_;
  const EditSpec& spec_;
  EditPlan plan_;
  sharding::CopyChanges changes_;
  std::map<std::string, TensorEdit> by_name_;  // Output tensor to its edit.
  std::unordered_map<std::string, std::shared_ptr<const Basis>> behind_norm_;
};

absl::Status Planner::CheckSpec() const {
  const EditableModel& model = plan_.model;
  if (spec_.directions.empty() && !spec_.addition) return absl::InvalidArgumentError("the edit has no direction");
  BEARING_RETURN_IF_ERROR(CheckStrengths(spec_, model.num_layers));
  if (spec_.addition) {
    if (spec_.addition->layer < 0 || spec_.addition->layer >= model.num_layers) {
      return OutsideTheModel("addition", spec_.addition->layer, model.num_layers);
    }
    if (static_cast<int64_t>(spec_.addition->vector.size()) != model.d_model) {
      return absl::InvalidArgumentError(Concat("added vector has another length than the model: want=", model.d_model,
                                               " got=", spec_.addition->vector.size()));
    }
  }
  return absl::OkStatus();
}

// What the writer's output must lose for the residual stream to lose the directions: behind a norm with gain g the write is
// g * (W t) / rms, so that it is g * r.
absl::StatusOr<std::shared_ptr<const Basis>> Planner::BasisBehind(const ResidualWriter& writer) {
  if (writer.norm_behind.empty()) return plan_.basis;
  if (const auto found = behind_norm_.find(writer.norm_behind); found != behind_norm_.end()) return found->second;
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> gain, ReadGain(source_, plan_.model, writer.norm_behind));
  std::vector<std::vector<double>> before;
  for (int64_t k = 0; k < plan_.basis->count; ++k) {
    std::vector<double>& vector = before.emplace_back(gain);
    for (int64_t i = 0; i < plan_.basis->d; ++i) vector[static_cast<size_t>(i)] *= plan_.basis->vector(k)[i];
  }
  absl::StatusOr<Basis> basis = MakeBasis(before, plan_.model.d_model);
  if (!basis.ok()) {
    return absl::FailedPreconditionError(Concat("the gain of a norm leaves no usable direction: tensor=", writer.tensor,
                                                " norm=", writer.norm_behind, " reason=", basis.status().message()));
  }
  return behind_norm_[writer.norm_behind] = std::make_shared<const Basis>(*std::move(basis));
}

absl::Status Planner::AddWriter(const ResidualWriter& writer) {
  TensorEdit edit;
  edit.weight = writer.tensor;
  edit.component = writer.component;
  edit.layer = writer.layer;
  edit.strength = spec_.StrengthOf(writer.component, writer.layer);
  if (edit.strength == 0) return absl::OkStatus();
  edit.preserve_norms = spec_.preserve_norms;
  edit.by_columns = writer.columns;
  BEARING_ASSIGN_OR_RETURN(edit.basis, BasisBehind(writer));
  const std::vector<int64_t>& shape = writer.shape;
  const size_t axes = shape.size();
  edit.columns = shape[axes - 1];
  // A tensor that writes rows is one matrix, whatever its axes.
  edit.rows = axes >= 2 ? shape[axes - 2] : 1;
  for (size_t axis = 0; axis + 2 < axes; ++axis) (edit.by_columns ? edit.matrices : edit.rows) *= shape[axis];
  plan_.edited_tensors.push_back(writer.tensor);

  const auto quantized = plan_.model.quantization.tensors.find(writer.tensor);
  if (quantized == plan_.model.quantization.tensors.end()) {
    edit.dtype = source_.entry(*source_.Find(writer.tensor)).dtype;
    by_name_.emplace(writer.tensor, std::move(edit));
    return absl::OkStatus();
  }
  edit.quantized = quantized->second;
  const bool is_mxfp4 = edit.quantized.form == QuantizedForm::kMxfp4;
  if (is_mxfp4 && spec_.quantized == QuantizedOutput::kBfloat16) {
    edit.kind = TensorEdit::Kind::kMxfp4Widened;
    edit.dtype = DType::kBF16;
    by_name_[writer.tensor] = std::move(edit);
    return absl::OkStatus();
  }
  if (is_mxfp4) {
    // Stored transposed.
    edit.by_columns = true;
    edit.matrices = shape[0];
    edit.rows = shape[2];
    edit.columns = shape[1];
  }
  if (!edit.by_columns) {
    return absl::UnimplementedError(Concat(
        "an 8-bit tensor whose rows are what it writes ([in, d_model]) cannot be edited: edit the unquantized base model "
        "and quantize the result. tensor=",
        writer.tensor));
  }
  edit.kind = is_mxfp4 ? TensorEdit::Kind::kMxfp4Blocks : TensorEdit::Kind::kFp8Values;
  edit.dtype = source_.entry(*source_.Find(edit.quantized.values)).dtype;
  TensorEdit scales = edit;
  scales.kind = is_mxfp4 ? TensorEdit::Kind::kMxfp4Scales : TensorEdit::Kind::kFp8Scales;
  scales.dtype = source_.entry(*source_.Find(edit.quantized.scales)).dtype;
  by_name_.emplace(edit.quantized.scales, std::move(scales));
  by_name_.emplace(edit.quantized.values, std::move(edit));
  return absl::OkStatus();
}

// A checkpoint whose experts are MXFP4 becomes a plain BF16 one: all of them are widened.
absl::Status Planner::WidenMxfp4() {
  if (spec_.quantized != QuantizedOutput::kBfloat16) return absl::OkStatus();
  bool any = false;
  for (const auto& [weight, quantized] : plan_.model.quantization.tensors) {
    if (quantized.form != QuantizedForm::kMxfp4) {
      return absl::UnimplementedError(
          Concat("only MXFP4 weights are written as bfloat16; 8-bit floats keep their format. tensor=", weight));
    }
    any = true;
    const std::vector<int64_t>& blocks = source_.entry(*source_.Find(quantized.values)).shape;
    TensorEdit& edit = by_name_[weight];
    edit.kind = TensorEdit::Kind::kMxfp4Widened;
    edit.weight = weight;
    edit.dtype = DType::kBF16;
    edit.quantized = quantized;
    edit.by_columns = false;
    edit.matrices = blocks[0];
    edit.rows = blocks[2] * 32;
    edit.columns = blocks[1];
    changes_.replaced[quantized.values] = {weight, DType::kBF16, {blocks[0], blocks[2] * 32, blocks[1]}};
    changes_.removed.insert(quantized.scales);
  }
  if (any) changes_.config["quantization_config"] = nullptr;
  return absl::OkStatus();
}

// Biases of every MLP of a family whose config can switch them on: 0, but in the block before the layer the vector.
absl::Status Planner::AddBiases(int64_t layer, const std::vector<double>& vector) {
  const EditableModel& model = plan_.model;
  if (model.mlp_bias_key.empty()) {
    return absl::UnimplementedError(
        Concat("family ", model.family,
               " has no bias behind its MLPs to write an addition to: use --form control-vector, or an "
               "addition at layer 0, which goes into the embedding"));
  }
  constexpr std::string_view kDown = "down_proj.weight";
  for (const ResidualWriter& writer : model.writers) {
    if (!std::string_view(writer.tensor).ends_with(kDown)) continue;
    const std::string prefix = writer.tensor.substr(0, writer.tensor.size() - kDown.size());
    const sharding::SafetensorsEntry& down = source_.entry(*source_.Find(writer.tensor));
    for (const auto& [part, size] : {std::pair<std::string_view, int64_t>{"gate_proj.bias", down.shape[1]},
                                     {"up_proj.bias", down.shape[1]},
                                     {"down_proj.bias", down.shape[0]}}) {
      const std::string name = Concat(prefix, part);
      changes_.added[writer.tensor].push_back({name, down.dtype, {size}});
      TensorEdit& edit = by_name_[name];
      edit.kind = TensorEdit::Kind::kConstant;
      edit.weight = name;
      edit.layer = writer.layer;
      edit.columns = size;
      edit.dtype = down.dtype;
      edit.constant.assign(static_cast<size_t>(size), 0.0);
      if (writer.layer == layer && part == "down_proj.bias") {
        edit.constant = vector;
        plan_.edited_tensors.push_back(name);
      }
    }
  }
  changes_.config[model.mlp_bias_key] = true;
  return absl::OkStatus();
}

// The vector at the input of block l is written by block l - 1, or by the embedding.
absl::Status Planner::AddAddition() {
  if (!spec_.addition) return absl::OkStatus();
  const EditableModel& model = plan_.model;
  const int64_t layer = spec_.addition->layer - 1;
  std::vector<double> vector = spec_.addition->vector;
  const double scale = layer < 0 ? model.embedding_scale : model.residual_scale;
  for (double& value : vector) value /= scale;
  const auto shared = std::make_shared<const std::vector<double>>(vector);
  bool found = false;
  for (const ResidualWriter& writer : model.writers) {
    const bool is_embedding = layer < 0 && writer.component == sharding::Component::kEmbedding;
    // A bias of each expert counts as one bias: an expert's weights in the mixture sum to 1 where there are such.
    const bool is_bias = layer >= 0 && writer.layer == layer && writer.component == sharding::Component::kMlp &&
                         std::string_view(writer.tensor).ends_with("bias");
    if (!is_embedding && !is_bias) continue;
    if (!writer.norm_behind.empty()) {
      return absl::UnimplementedError(
          Concat("the MLP's output passes a norm, which no bias gets past: tensor=", writer.tensor));
    }
    found = true;
    TensorEdit& edit = by_name_[writer.tensor];
    if (edit.basis == nullptr) {
      edit.weight = writer.tensor;
      edit.component = writer.component;
      edit.layer = writer.layer;
      edit.basis = std::make_shared<const Basis>(Basis{.d = model.d_model, .count = 0, .vectors = {}});
      edit.columns = writer.shape.back();
      for (size_t axis = 0; axis + 1 < writer.shape.size(); ++axis) edit.rows *= writer.shape[axis];
      edit.dtype = source_.entry(*source_.Find(writer.tensor)).dtype;
      plan_.edited_tensors.push_back(writer.tensor);
    }
    edit.add = shared;
  }
  return found ? absl::OkStatus() : AddBiases(layer, vector);
}

absl::Status Planner::IndexOutputs() {
  for (size_t i = 0; i < plan_.copy.tensors.size(); ++i) {
    const auto found = by_name_.find(plan_.copy.tensors[i].name);
    if (found == by_name_.end()) continue;
    plan_.edits.emplace(i, std::move(found->second));
    by_name_.erase(found);
  }
  if (by_name_.empty()) return absl::OkStatus();
  return absl::InternalError(Concat("edited tensor has no place in the copy: tensor=", by_name_.begin()->first));
}

absl::StatusOr<EditPlan> Planner::Make() {
  const std::string config_path = Concat(source_.model_dir(), "/config.json");
  BEARING_ASSIGN_OR_RETURN(
      plan_.model, sharding::FindResidualWriters(source_.config_text(), config_path, source_.tensors(), spec_.projector));
  BEARING_RETURN_IF_ERROR(CheckSpec());
  BEARING_ASSIGN_OR_RETURN(Basis basis, MakeBasis(spec_.directions, plan_.model.d_model));
  plan_.basis = std::make_shared<const Basis>(std::move(basis));
  for (const ResidualWriter& writer : plan_.model.writers) BEARING_RETURN_IF_ERROR(AddWriter(writer));
  BEARING_RETURN_IF_ERROR(WidenMxfp4());
  BEARING_RETURN_IF_ERROR(AddAddition());
  if (plan_.edited_tensors.empty()) {
    return absl::InvalidArgumentError("the edit changes no tensor: every strength is 0");
  }
  // Only an edited embedding makes a difference between the two.
  plan_.untied = plan_.model.tied_embeddings && !spec_.keep_tied && by_name_.contains(plan_.model.embedding);
  changes_.untie = plan_.untied;
  changes_.embedding = plan_.model.embedding;
  changes_.unembedding = plan_.model.unembedding;
  BEARING_ASSIGN_OR_RETURN(plan_.copy, sharding::MakeCopyPlan(source_, changes_));
  BEARING_RETURN_IF_ERROR(IndexOutputs());
  return std::move(plan_);
}

}  // namespace

absl::Status CheckStrengths(const EditSpec& spec, int64_t num_layers) {
  if (spec.first_layer < 0 || spec.first_layer >= num_layers) {
    return OutsideTheModel("first layer", spec.first_layer, num_layers);
  }
  if (spec.last_layer && (*spec.last_layer < spec.first_layer || *spec.last_layer >= num_layers)) {
    return OutsideTheModel("last layer", *spec.last_layer, num_layers);
  }
  for (const auto& [layer, strength] : spec.layers) {
    if (layer < 0 || layer >= num_layers) return OutsideTheModel("layer strength", layer, num_layers);
    if (!std::isfinite(strength)) return absl::InvalidArgumentError(Concat("strength must be finite: layer=", layer));
  }
  for (const auto& [component, strength] : spec.components) {
    if (!std::isfinite(strength)) {
      return absl::InvalidArgumentError(Concat("strength must be finite: component=", sharding::ComponentName(component)));
    }
  }
  return std::isfinite(spec.strength) ? absl::OkStatus() : absl::InvalidArgumentError("strength must be finite");
}

absl::StatusOr<Basis> MakeBasis(const std::vector<std::vector<double>>& directions, int64_t d) {
  Basis basis{.d = d, .count = 0, .vectors = {}};
  for (const std::vector<double>& direction : directions) {
    if (static_cast<int64_t>(direction.size()) != d) {
      return absl::InvalidArgumentError(Concat("direction has another length than the model: number=", basis.count + 1,
                                               " want=", d, " got=", direction.size()));
    }
    std::vector<double> vector = direction;
    const double length = Norm(vector);
    if (!std::isfinite(length) || length == 0) {
      return absl::InvalidArgumentError(Concat("direction is zero or not finite: number=", basis.count + 1));
    }
    for (double& value : vector) value /= length;
    // Twice: the second pass removes what rounding left of the first.
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t k = 0; k < basis.count; ++k) {
        double dot = 0;
        for (int64_t i = 0; i < d; ++i) dot += vector[static_cast<size_t>(i)] * basis.vector(k)[i];
        for (int64_t i = 0; i < d; ++i) vector[static_cast<size_t>(i)] -= dot * basis.vector(k)[i];
      }
    }
    const double left = Norm(vector);
    if (left < kSmallestRemainder) {
      return absl::InvalidArgumentError(
          Concat("direction lies in the span of those before it: number=", basis.count + 1, " remainder=", left));
    }
    for (const double value : vector) basis.vectors.push_back(value / left);
    ++basis.count;
  }
  return basis;
}

absl::StatusOr<EditPlan> MakeEditPlan(const WeightFiles& source, const EditSpec& spec) { return Planner(source, spec).Make(); }

}  // namespace bearing::edit
