#include "sharding/residual_writers.h"

#include <algorithm>
#include <bitset>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "sharding/concat.h"
#include "sharding/json_text.h"
#include "sharding/layer_config.h"
#include "sharding/model_family.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

using TensorMap = std::unordered_map<std::string_view, const DiskTensor*>;

absl::Status CheckStoredType(const DiskTensor& tensor) {
  if (tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16) return absl::OkStatus();
  return absl::FailedPreconditionError(
      Concat("tensor has another dtype than F32, F16 or BF16: tensor=", tensor.name, " got=", DTypeName(tensor.dtype)));
}

// ---- Families with a decoder.

Component ComponentOf(ParamRole role) {
  switch (role) {
    case ParamRole::kEmbedding:
      return Component::kEmbedding;
    case ParamRole::kAttentionOut:
    case ParamRole::kAttentionOutBias:
      return Component::kAttention;
    default:
      return Component::kMlp;
  }
}

constexpr WriterRow kGemma3Projector = {"multi_modal_projector.mm_input_projection_weight", Component::kProjector,
                                        Orientation::kInOut};

absl::StatusOr<EditableModel> FromLayout(const nlohmann::json& document, std::string_view source, Quantization quantization,
                                         bool with_projector) {
  nlohmann::json plain;
  const bool is_plain = !document.contains("quantization_config");
  if (!is_plain) {
    plain = document;
    plain.erase("quantization_config");
  }
  BEARING_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(is_plain ? document : plain, source));
  BEARING_ASSIGN_OR_RETURN(const ParamLayout layout, ParamLayout::Match(config, quantization.logical));
  EditableModel model;
  model.family = config.family;
  model.can_run = quantization.tensors.empty();
  model.d_model = config.d_model;
  model.num_layers = config.num_layers();
  model.tied_embeddings = config.tied_embeddings;
  model.unit_offset_norm = config.norm.unit_offset;
  model.embedding_scale = config.embedding_scale;
  if (config.family == "llama") model.mlp_bias_key = "mlp_bias";
  model.embedding = layout.Find(ParamRole::kEmbedding)->name;
  model.unembedding = layout.unembedding_name();
  for (const ParamEntry& entry : layout.entries()) {
    if (!entry.writes_residual) continue;
    ResidualWriter writer{.tensor = entry.name,
                          .component = ComponentOf(entry.role),
                          .layer = entry.layer,
                          .shape = entry.shape,
                          .columns = entry.shape.size() == 2 && entry.residual_axis == 0,
                          .norm_behind = ""};
    if (entry.norm_behind) writer.norm_behind = layout.Find(*entry.norm_behind, entry.layer)->name;
    model.writers.push_back(std::move(writer));
  }
  if (with_projector && config.wrapped) {
    for (const DiskTensor& tensor : quantization.logical) {
      if (!std::string_view(tensor.name).ends_with(kGemma3Projector.name)) continue;
      if (tensor.shape.size() != 2 || tensor.shape[1] != model.d_model) {
        return absl::FailedPreconditionError(Concat("projector must end in d_model: tensor=", tensor.name,
                                                    " d_model=", model.d_model, " got=", ShapeText(tensor.shape)));
      }
      BEARING_RETURN_IF_ERROR(CheckStoredType(tensor));
      model.writers.push_back({tensor.name, Component::kProjector, -1, tensor.shape, false, ""});
    }
  }
  model.quantization = std::move(quantization);
  return model;
}

// ---- Families of the table.

// Does `name` begin with (row ends in ".") or equal `row`? {E} and {L} stand for a number, which is returned; -1 without one.
std::optional<int64_t> Matches(std::string_view row, std::string_view name) {
  const size_t mark = row.find('{');
  if (mark == std::string_view::npos) {
    if (row.ends_with(".") ? name.starts_with(row) : name == row) return -1;
    return std::nullopt;
  }
  if (!name.starts_with(row.substr(0, mark))) return std::nullopt;
  name.remove_prefix(mark);
  const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  int64_t number = 0;
  if (digits == 0 || !absl::SimpleAtoi(AsAbsl(name.substr(0, digits)), &number)) return std::nullopt;
  const std::string_view rest = row.substr(mark + 3);
  name.remove_prefix(digits);
  if (rest.ends_with(".") ? name.starts_with(rest) : name == rest) return number;
  return std::nullopt;
}

constexpr size_t kMaxWriterRows = 32;  // Of a family's table.

struct TableReader {
  const EditFamily& family;
  std::string source;
  int64_t experts = 0;
  int64_t expert_size = 0;
  bool shared = false;
  int64_t next_layers = 0;
  EditableModel model;
  // What each layer has: routed experts, 1 for a fused tensor.
  struct Found {
    bool dense = false, shared = false, fused = false;
    std::vector<bool> experts;  // Empty before the first.
    std::bitset<kMaxWriterRows> rows;
  };
  std::vector<Found> layers;

  absl::Status ReadConfig(const JsonFields& file, const JsonFields& text);
  absl::StatusOr<bool> IsColumns(const WriterRow& row, const DiskTensor& tensor) const;
  absl::Status AddWriter(const WriterRow& row, const DiskTensor& tensor, int64_t layer, std::string_view prefix);
  absl::StatusOr<bool> AddOfLayer(const DiskTensor& tensor, int64_t layer, std::string_view prefix, std::string_view suffix);
  absl::Status AddTensor(const DiskTensor& tensor, bool with_projector);
  absl::Status CheckLayers(const TensorMap& tensors) const;
};

absl::Status TableReader::ReadConfig(const JsonFields& file, const JsonFields& text) {
  model.family = std::string(family.model_type);
  BEARING_ASSIGN_OR_RETURN(model.d_model, text.Int("hidden_size", 1, kMaxWidth));
  BEARING_ASSIGN_OR_RETURN(model.num_layers, text.Int("num_hidden_layers", 1, kMaxLayers));
  BEARING_ASSIGN_OR_RETURN(const bool text_tied, text.Bool("tie_word_embeddings", family.tied_default));
  BEARING_ASSIGN_OR_RETURN(model.tied_embeddings, file.Bool("tie_word_embeddings", text_tied));
  if (!family.experts_key.empty()) {
    const bool second = !text.Has(family.experts_key) && !family.experts_key_2.empty();
    BEARING_ASSIGN_OR_RETURN(experts, text.Int(second ? family.experts_key_2 : family.experts_key, 0, kMaxExperts));
  }
  if (!family.expert_size_key.empty()) {
    BEARING_ASSIGN_OR_RETURN(expert_size, text.Int(family.expert_size_key, 1, kMaxWidth));
  }
  shared = family.always_shared;
  if (!family.shared_key.empty()) {
    BEARING_ASSIGN_OR_RETURN(const int64_t count, text.Int(family.shared_key, 0, kMaxExperts, 0));
    shared = count > 0;
  }
  if (!family.next_layers_key.empty()) {
    BEARING_ASSIGN_OR_RETURN(next_layers, text.Int(family.next_layers_key, 0, kMaxLayers, 0));
  }
  if (!family.residual_scale_key.empty()) {
    BEARING_ASSIGN_OR_RETURN(model.residual_scale, text.Number(family.residual_scale_key, 1.0));
    if (model.residual_scale == 0) return text.Invalid(family.residual_scale_key, "want a number other than 0");
  }
  if (!family.embedding_scale_key.empty()) {
    BEARING_ASSIGN_OR_RETURN(model.embedding_scale, text.Number(family.embedding_scale_key, 1.0));
    if (model.embedding_scale == 0) return text.Invalid(family.embedding_scale_key, "want a number other than 0");
  }
  if (family.model_type == "granite") model.mlp_bias_key = "mlp_bias";
  model.embedding = Concat(family.body, "embed_tokens.weight");
  model.unembedding = std::string(family.unembedding);
  layers.resize(static_cast<size_t>(model.num_layers));
  return absl::OkStatus();
}

// The shape must be the one that the table and the config ask for; of it follows nothing else.
absl::StatusOr<bool> TableReader::IsColumns(const WriterRow& row, const DiskTensor& tensor) const {
  const std::vector<int64_t>& got = tensor.shape;
  const int64_t d = model.d_model;
  const auto wrong = [&](std::string_view want) {
    return absl::FailedPreconditionError(Concat("tensor has another shape than the config asks for: tensor=", tensor.name,
                                                " want=", want, " got=", ShapeText(got)));
  };
  switch (row.orientation) {
    case Orientation::kOutIn:
      if (got.size() != 2 || got[0] != d) return wrong(Concat("[", d, ", in]"));
      return true;
    case Orientation::kInOut:
      if (got.size() != 2 || got[1] != d) return wrong(Concat("[in, ", d, "]"));
      return false;
    case Orientation::kVector:
      if (got != std::vector<int64_t>{d}) return wrong(Concat("[", d, "]"));
      return false;
    case Orientation::kFusedVector:
      if (got != std::vector<int64_t>{experts, d}) return wrong(Concat("[", experts, ", ", d, "]"));
      return false;
    case Orientation::kFusedInOut:
      if (got != std::vector<int64_t>{experts, expert_size, d}) return wrong(ShapeText({experts, expert_size, d}));
      return false;
    case Orientation::kFusedEither:
      break;
  }
  const bool in_out = got == std::vector<int64_t>{experts, expert_size, d};
  const bool out_in = got == std::vector<int64_t>{experts, d, expert_size};
  if (in_out && out_in) {
    return absl::UnimplementedError(Concat(
        "experts of this family are stored in two orientations, which equal sizes do not tell apart: tensor=", tensor.name,
        " hidden_size=", d, " ", family.expert_size_key, "=", expert_size));
  }
  if (!in_out && !out_in) {
    return wrong(Concat(ShapeText({experts, expert_size, d}), " or ", ShapeText({experts, d, expert_size})));
  }
  return out_in;
}

absl::Status TableReader::AddWriter(const WriterRow& row, const DiskTensor& tensor, int64_t layer, std::string_view prefix) {
  BEARING_RETURN_IF_ERROR(CheckStoredType(tensor));
  BEARING_ASSIGN_OR_RETURN(const bool columns, IsColumns(row, tensor));
  ResidualWriter writer{.tensor = tensor.name,
                        .component = row.component,
                        .layer = layer,
                        .shape = tensor.shape,
                        .columns = columns,
                        .norm_behind = ""};
  if (!row.norm_behind.empty()) writer.norm_behind = Concat(prefix, row.norm_behind);
  model.writers.push_back(std::move(writer));
  return absl::OkStatus();
}

// true when the tensor is one of the layer's.
absl::StatusOr<bool> TableReader::AddOfLayer(const DiskTensor& tensor, int64_t layer, std::string_view prefix,
                                             std::string_view suffix) {
  Found& found = layers[static_cast<size_t>(layer)];
  for (size_t r = 0; r < family.writers.size(); ++r) {
    const WriterRow& row = family.writers[r];
    const std::optional<int64_t> expert = Matches(row.name, suffix);
    if (!expert) continue;
    found.rows[r] = true;
    if (*expert >= 0) {
      if (*expert >= experts) {
        return absl::FailedPreconditionError(
            Concat("tensor of an expert that the config does not have: tensor=", tensor.name, " experts=", experts));
      }
      found.experts.resize(static_cast<size_t>(experts));
      found.experts[static_cast<size_t>(*expert)] = true;
    } else if (row.orientation == Orientation::kFusedInOut || row.orientation == Orientation::kFusedEither) {
      found.fused = true;
    } else if (row.name.find("shared_expert") != std::string_view::npos) {
      found.shared = true;
    } else if (row.component == Component::kMlp && row.orientation == Orientation::kOutIn) {
      found.dense = true;
    }
    BEARING_RETURN_IF_ERROR(AddWriter(row, tensor, layer, prefix));
    return true;
  }
  for (const std::string_view row : family.readers) {
    if (Matches(row, suffix)) return true;
  }
  return false;
}

absl::Status TableReader::AddTensor(const DiskTensor& tensor, bool with_projector) {
  const std::string_view name = tensor.name;
  for (const WriterRow& row : family.projector) {
    if (with_projector && Matches(row.name, name)) return AddWriter(row, tensor, -1, "");
  }
  for (const std::string_view part : family.other_parts) {
    if (name.starts_with(part)) return absl::OkStatus();
  }
  if (name == model.unembedding || name == Concat(family.body, "norm.weight") || name == Concat(family.body, "norm.bias") ||
      (name == "lm_head.bias" && family.model_type == "phimoe")) {
    return absl::OkStatus();
  }
  if (name == model.embedding) {
    return AddWriter({.name = "embed_tokens.weight", .component = Component::kEmbedding, .orientation = Orientation::kInOut},
                     tensor, -1, "");
  }
  const std::string in_layers = Concat(family.body, "layers.");
  if (name.starts_with(in_layers)) {
    std::string_view rest = name.substr(in_layers.size());
    const size_t dot = rest.find('.');
    int64_t layer = -1;
    if (dot != std::string_view::npos && absl::SimpleAtoi(AsAbsl(rest.substr(0, dot)), &layer) && layer >= 0) {
      if (layer >= model.num_layers && layer < model.num_layers + next_layers) return absl::OkStatus();
      if (layer < model.num_layers) {
        const size_t prefix = in_layers.size() + dot + 1;
        BEARING_ASSIGN_OR_RETURN(const bool known, AddOfLayer(tensor, layer, name.substr(0, prefix), name.substr(prefix)));
        if (known) return absl::OkStatus();
      }
    }
  }
  return absl::FailedPreconditionError(
      Concat("tensor is not known in this family: tensor=", Escaped(name), " family=", family.model_type));
}

absl::Status TableReader::CheckLayers(const TensorMap& tensors) const {
  const auto missing = [](std::string_view name) {
    return absl::FailedPreconditionError(Concat("tensor is missing from the checkpoint: tensor=", name));
  };
  if (!tensors.contains(model.embedding)) return missing(model.embedding);
  if (!model.tied_embeddings && !tensors.contains(model.unembedding)) return missing(model.unembedding);
  for (size_t l = 0; l < layers.size(); ++l) {
    const Found& found = layers[l];
    const std::string prefix = Concat(family.body, "layers.", l, ".");
    for (size_t r = 0; r < family.writers.size(); ++r) {
      if (family.writers[r].required && !found.rows[r]) return missing(Concat(prefix, family.writers[r].name));
    }
    const auto present = std::count(found.experts.begin(), found.experts.end(), true);
    if (present > 0 && present < experts) {
      const auto first = std::find(found.experts.begin(), found.experts.end(), false) - found.experts.begin();
      return absl::FailedPreconditionError(
          Concat("layer lacks an expert: layer=", l, " expert=", first, " experts=", experts, " found=", present));
    }
    const bool mixture = present > 0 || found.fused;
    if (!mixture && !found.dense) {
      return absl::FailedPreconditionError(
          Concat("layer has no tensor that writes the MLP's output: layer=", l, " family=", family.model_type));
    }
    if (mixture && shared && !found.shared) {
      return absl::FailedPreconditionError(
          Concat("layer lacks the shared expert that the config has: layer=", l, " family=", family.model_type));
    }
  }
  for (const ResidualWriter& writer : model.writers) {
    if (!writer.norm_behind.empty() && !tensors.contains(writer.norm_behind)) return missing(writer.norm_behind);
  }
  return absl::OkStatus();
}

absl::StatusOr<EditableModel> FromTable(const EditFamily& family, const nlohmann::json& document, std::string_view source,
                                        Quantization quantization, bool with_projector) {
  const JsonFields file(document, source);
  std::optional<JsonFields> text = file;
  if (family.has_text_config) {
    BEARING_ASSIGN_OR_RETURN(text, file.Object("text_config"));
    if (!text) return file.Invalid("text_config", "want the config of the text model");
  }
  TableReader reader{.family = family, .source = std::string(source), .model = {}, .layers = {}};
  BEARING_RETURN_IF_ERROR(reader.ReadConfig(file, *text));
  TensorMap tensors;
  for (const DiskTensor& tensor : quantization.logical) {
    tensors.emplace(tensor.name, &tensor);
    BEARING_RETURN_IF_ERROR(reader.AddTensor(tensor, with_projector));
  }
  BEARING_RETURN_IF_ERROR(reader.CheckLayers(tensors));
  // The order of the forward pass, whatever the order of the files: names of a layer and component stay as they came.
  std::stable_sort(reader.model.writers.begin(), reader.model.writers.end(),
                   [](const ResidualWriter& a, const ResidualWriter& b) {
                     return std::pair(a.layer, a.component) < std::pair(b.layer, b.component);
                   });
  reader.model.quantization = std::move(quantization);
  return std::move(reader.model);
}

}  // namespace

absl::StatusOr<EditableModel> FindResidualWriters(std::string_view config_text, std::string_view source,
                                                  absl::Span<const DiskTensor> on_disk, bool with_projector) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(config_text, source));
  const JsonFields file(document, source);
  BEARING_ASSIGN_OR_RETURN(const std::string model_type, file.String("model_type"));
  const EditFamily* const family = FindEditFamily(model_type);
  if (family == nullptr && FindModelFamily(model_type) == nullptr) {
    return file.Unsupported("model_type",
                            Concat("model family (supported: ", SupportedModelTypes(), ", ", EditOnlyModelTypes(), ")"));
  }
  BEARING_ASSIGN_OR_RETURN(Quantization quantization, FindQuantization(document, source, on_disk));
  if (family != nullptr) return FromTable(*family, document, source, std::move(quantization), with_projector);
  return FromLayout(document, source, std::move(quantization), with_projector);
}

std::string_view ComponentName(Component component) {
  switch (component) {
    case Component::kEmbedding:
      return "embedding";
    case Component::kAttention:
      return "attention";
    case Component::kMlp:
      return "mlp";
    case Component::kProjector:
      return "projector";
  }
  return "";
}

}  // namespace bearing::sharding
