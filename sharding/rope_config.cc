#include "sharding/rope_config.h"

#include <optional>
#include <string>

#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

// The object that describes the rotation, wherever the file keeps it. As in transformers, `rope_scaling` wins when both
// are there and it is not empty.
absl::StatusOr<std::optional<JsonFields>> RopeObject(const JsonFields& config) {
  const nlohmann::json* scaling = config.Find("rope_scaling");
  if (scaling != nullptr && !scaling->empty()) return config.Object("rope_scaling");
  BEARING_ASSIGN_OR_RETURN(std::optional<JsonFields> parameters, config.Object("rope_parameters"));
  // One object for each kind of layer; all layers here are of the full kind.
  if (parameters && parameters->Has("full_attention")) return parameters->Object("full_attention");
  return parameters;
}

absl::Status CheckWholeHead(const JsonFields& fields) {
  BEARING_ASSIGN_OR_RETURN(const double factor, fields.Number("partial_rotary_factor", 1.0));
  if (factor != 1.0) return fields.Unsupported("partial_rotary_factor", "rotary embedding over a part of the head");
  return absl::OkStatus();
}

absl::StatusOr<double> Positive(const JsonFields& fields, std::string_view key, std::optional<double> fallback = {}) {
  BEARING_ASSIGN_OR_RETURN(const double value, fields.Number(key, fallback));
  if (value <= 0.0) return fields.Invalid(key, "want a number above 0");
  return value;
}

absl::Status ParseLlama3(const JsonFields& config, const JsonFields& rope, int64_t max_positions, RopeSpec* spec) {
  spec->scaling = RopeScaling::kLlama3;
  BEARING_ASSIGN_OR_RETURN(spec->factor, Positive(rope, "factor"));
  BEARING_ASSIGN_OR_RETURN(spec->low_freq_factor, Positive(rope, "low_freq_factor"));
  BEARING_ASSIGN_OR_RETURN(spec->high_freq_factor, Positive(rope, "high_freq_factor"));
  if (spec->high_freq_factor <= spec->low_freq_factor)
    return rope.Invalid("high_freq_factor", "want more than low_freq_factor");
  const JsonFields& holder = config.Has("original_max_position_embeddings") ? config : rope;
  BEARING_ASSIGN_OR_RETURN(spec->original_max_positions,
                           holder.Int("original_max_position_embeddings", 1, int64_t{1} << 40, max_positions));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RopeSpec> ParseRope(const JsonFields& config, int64_t max_positions) {
  RopeSpec spec;
  BEARING_RETURN_IF_ERROR(CheckWholeHead(config));
  BEARING_ASSIGN_OR_RETURN(spec.theta, Positive(config, "rope_theta", spec.theta));
  BEARING_ASSIGN_OR_RETURN(const std::optional<JsonFields> rope, RopeObject(config));
  if (!rope) return spec;

  BEARING_RETURN_IF_ERROR(CheckWholeHead(*rope));
  BEARING_ASSIGN_OR_RETURN(spec.theta, Positive(*rope, "rope_theta", spec.theta));
  const std::string type_key = rope->Has("rope_type") ? "rope_type" : "type";
  BEARING_ASSIGN_OR_RETURN(const std::string type, rope->String(type_key, "default"));
  if (type == "default") return spec;
  if (type == "linear") {
    spec.scaling = RopeScaling::kLinear;
    BEARING_ASSIGN_OR_RETURN(spec.factor, Positive(*rope, "factor"));
    return spec;
  }
  if (type == "llama3") {
    BEARING_RETURN_IF_ERROR(ParseLlama3(config, *rope, max_positions, &spec));
    return spec;
  }
  return rope->Unsupported(type_key, "rotary embedding scaled other than default, linear or llama3");
}

}  // namespace bearing::sharding
