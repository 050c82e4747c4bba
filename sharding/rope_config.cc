#include "sharding/rope_config.h"

#include <cmath>
#include <optional>
#include <string>

#include "sharding/concat.h"
#include "sharding/layer_config.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

constexpr double kLocalTheta = 10000.0;  // Of gemma3's sliding layers.

absl::StatusOr<double> Positive(const JsonFields& fields, std::string_view key, std::optional<double> fallback = {}) {
  BEARING_ASSIGN_OR_RETURN(const double value, fields.Number(key, fallback));
  if (value <= 0.0) return fields.Invalid(key, "want a number above 0");
  return value;
}

// What config.json says of one kind of layer: its own object, and keys beside it.
class RopeReader {
 public:
  RopeReader(const JsonFields& config, const ModelFamily& family, int64_t head_dim, int64_t max_positions)
      : config_(config), family_(family), head_dim_(head_dim), max_positions_(max_positions) {}

  // `rope`: the object that describes the rotation, if the file has one.
  absl::StatusOr<RopeSpec> Read(const std::optional<JsonFields>& rope, double theta) const {
    RopeSpec spec;
    BEARING_ASSIGN_OR_RETURN(spec.rotary_dim, RotaryDim(rope));
    spec.theta = theta;
    if (!rope) return spec;
    BEARING_ASSIGN_OR_RETURN(spec.theta, Positive(*rope, "rope_theta", theta));
    const std::string type_key = rope->Has("rope_type") ? "rope_type" : "type";
    BEARING_ASSIGN_OR_RETURN(std::string type, rope->String(type_key, "default"));
    // Phi-3's files before transformers 4.43 call longrope so.
    if (family_.partial_rotary && (type == "su" || type == "yarn")) type = "longrope";
    if (type == "default") return spec;
    absl::Status status;
    if (type == "linear") {
      status = ReadFactor(*rope, RopeScaling::kLinear, &spec);
    } else if (type == "dynamic") {
      status = ReadFactor(*rope, RopeScaling::kDynamic, &spec);
    } else if (type == "llama3") {
      status = ReadLlama3(*rope, &spec);
    } else if (type == "yarn") {
      status = ReadYarn(*rope, &spec);
    } else if (type == "longrope") {
      status = ReadLongRope(*rope, &spec);
    } else {
      status = rope->Unsupported(
          type_key, "rotary embedding scaled other than default, linear, dynamic, llama3, yarn or longrope");
    }
    BEARING_RETURN_IF_ERROR(status);
    return spec;
  }

 private:
  absl::StatusOr<int64_t> RotaryDim(const std::optional<JsonFields>& rope) const {
    const JsonFields& fields = rope && rope->Has("partial_rotary_factor") ? *rope : config_;
    BEARING_ASSIGN_OR_RETURN(const double factor, fields.Number("partial_rotary_factor", 1.0));
    if (factor == 1.0) return head_dim_;
    if (!family_.partial_rotary) {
      return fields.Unsupported("partial_rotary_factor", "rotary embedding over a part of the head");
    }
    const auto dim = static_cast<int64_t>(static_cast<double>(head_dim_) * factor);
    if (factor <= 0.0 || factor > 1.0 || dim < 2 || dim % 2 != 0) {
      return fields.Invalid("partial_rotary_factor", Concat("want an even part of head_dim=", head_dim_));
    }
    return dim;
  }

  static absl::Status ReadFactor(const JsonFields& rope, RopeScaling scaling, RopeSpec* spec) {
    spec->scaling = scaling;
    BEARING_ASSIGN_OR_RETURN(spec->factor, Positive(rope, "factor"));
    return absl::OkStatus();
  }

  absl::Status ReadOriginalPositions(const JsonFields& rope, RopeSpec* spec) const {
    const JsonFields& holder = config_.Has("original_max_position_embeddings") ? config_ : rope;
    BEARING_ASSIGN_OR_RETURN(spec->original_max_positions,
                             holder.Int("original_max_position_embeddings", 1, kMaxPositions, max_positions_));
    return absl::OkStatus();
  }

  absl::Status ReadLlama3(const JsonFields& rope, RopeSpec* spec) const {
    BEARING_RETURN_IF_ERROR(ReadFactor(rope, RopeScaling::kLlama3, spec));
    BEARING_ASSIGN_OR_RETURN(spec->low_freq_factor, Positive(rope, "low_freq_factor"));
    BEARING_ASSIGN_OR_RETURN(spec->high_freq_factor, Positive(rope, "high_freq_factor"));
    if (spec->high_freq_factor <= spec->low_freq_factor) {
      return rope.Invalid("high_freq_factor", "want more than low_freq_factor");
    }
    return ReadOriginalPositions(rope, spec);
  }

  // Peng et al. 2023, arXiv 2309.00071, with transformers' names.
  absl::Status ReadYarn(const JsonFields& rope, RopeSpec* spec) const {
    spec->scaling = RopeScaling::kYarn;
    BEARING_RETURN_IF_ERROR(ReadOriginalPositions(rope, spec));
    BEARING_ASSIGN_OR_RETURN(
        spec->factor, Positive(rope, "factor",
                               static_cast<double>(max_positions_) / static_cast<double>(spec->original_max_positions)));
    BEARING_ASSIGN_OR_RETURN(spec->beta_fast, Positive(rope, "beta_fast", spec->beta_fast));
    BEARING_ASSIGN_OR_RETURN(spec->beta_slow, Positive(rope, "beta_slow", spec->beta_slow));
    BEARING_ASSIGN_OR_RETURN(spec->truncate, rope.Bool("truncate", true));
    BEARING_ASSIGN_OR_RETURN(const double mscale, rope.Number("mscale", 0.0));
    BEARING_ASSIGN_OR_RETURN(const double mscale_all_dim, rope.Number("mscale_all_dim", 0.0));
    const auto magnitude = [&](double m) { return spec->factor <= 1.0 ? 1.0 : 0.1 * m * std::log(spec->factor) + 1.0; };
    const double inferred =
        mscale != 0.0 && mscale_all_dim != 0.0 ? magnitude(mscale) / magnitude(mscale_all_dim) : magnitude(1.0);
    BEARING_ASSIGN_OR_RETURN(spec->attention_factor, Positive(rope, "attention_factor", inferred));
    return absl::OkStatus();
  }

  // Ding et al. 2024, arXiv 2402.13753.
  absl::Status ReadLongRope(const JsonFields& rope, RopeSpec* spec) const {
    spec->scaling = RopeScaling::kLongRope;
    BEARING_RETURN_IF_ERROR(ReadOriginalPositions(rope, spec));
    const auto original = static_cast<double>(spec->original_max_positions);
    BEARING_ASSIGN_OR_RETURN(spec->factor, Positive(rope, "factor", static_cast<double>(max_positions_) / original));
    const double inferred = spec->factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(spec->factor) / std::log(original));
    BEARING_ASSIGN_OR_RETURN(spec->attention_factor, Positive(rope, "attention_factor", inferred));
    BEARING_ASSIGN_OR_RETURN(spec->short_factor, ReadFactors(rope, "short_factor", spec->rotary_dim / 2));
    BEARING_ASSIGN_OR_RETURN(spec->long_factor, ReadFactors(rope, "long_factor", spec->rotary_dim / 2));
    return absl::OkStatus();
  }

  static absl::StatusOr<std::vector<double>> ReadFactors(const JsonFields& rope, std::string_view key, int64_t count) {
    const nlohmann::json* list = rope.Find(key);
    if (list == nullptr || !list->is_array() || static_cast<int64_t>(list->size()) != count) {
      return rope.Invalid(key, Concat("want a list of ", count, " numbers"));
    }
    std::vector<double> factors;
    factors.reserve(list->size());
    for (const nlohmann::json& value : *list) {
      if (!value.is_number() || value.get<double>() <= 0.0) return rope.Invalid(key, "want numbers above 0");
      factors.push_back(value.get<double>());
    }
    return factors;
  }

  const JsonFields& config_;
  const ModelFamily& family_;
  int64_t head_dim_;
  int64_t max_positions_;
};

}  // namespace

absl::StatusOr<std::vector<RopeSpec>> ParseRopes(const JsonFields& config, const ModelFamily& family, int64_t head_dim,
                                                 int64_t max_positions) {
  const RopeReader reader(config, family, head_dim, max_positions);
  BEARING_ASSIGN_OR_RETURN(const double theta, Positive(config, "rope_theta", family.theta));
  BEARING_ASSIGN_OR_RETURN(const double local_theta, Positive(config, "rope_local_base_freq", kLocalTheta));
  // As in transformers, `rope_scaling` wins when both are there and it is not empty. It speaks of the full layers.
  const nlohmann::json* scaling = config.Find("rope_scaling");
  const bool has_scaling = scaling != nullptr && !scaling->empty();
  BEARING_ASSIGN_OR_RETURN(std::optional<JsonFields> rope, config.Object(has_scaling ? "rope_scaling" : "rope_parameters"));
  std::optional<JsonFields> local;
  if (rope && !has_scaling && (rope->Has("full_attention") || rope->Has("sliding_attention"))) {
    // One object for each kind of layer.
    BEARING_ASSIGN_OR_RETURN(local, rope->Object("sliding_attention"));
    BEARING_ASSIGN_OR_RETURN(rope, rope->Object("full_attention"));
  }
  std::vector<RopeSpec> ropes;
  BEARING_ASSIGN_OR_RETURN(ropes.emplace_back(), reader.Read(rope, theta));
  if (family.local_rope) {
    BEARING_ASSIGN_OR_RETURN(ropes.emplace_back(), reader.Read(local, local_theta));
  }
  return ropes;
}

}  // namespace bearing::sharding
