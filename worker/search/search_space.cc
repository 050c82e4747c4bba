#include "worker/search/search_space.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/edit/direction_input.h"

namespace bearing::worker {
namespace {

// A mean difference with a norm under this share of the largest is zero, rounding aside (as in select).
constexpr double kZeroNorm = 1e-5;

// The rows of a table at a place between two of them.
at::Tensor Between(const at::Tensor& table_LD, double layer) {
  const auto below = static_cast<int64_t>(std::floor(layer));
  const double share = layer - static_cast<double>(below);
  if (share == 0) return table_LD[below].clone();
  return table_LD[below] * (1.0 - share) + table_LD[below + 1] * share;
}

std::vector<double> Values(const at::Tensor& vector) {
  const at::Tensor dense = vector.contiguous();
  return {dense.const_data_ptr<double>(), dense.const_data_ptr<double>() + dense.numel()};
}

}  // namespace

absl::StatusOr<SearchSpace> SearchSpace::Make(const at::Tensor& difference_LD, const at::Tensor& negative_mean_LD,
                                              int64_t first_layer, int64_t last_layer) {
  SearchSpace space;
  const int64_t layers = difference_LD.size(0);
  if (first_layer < 0 || last_layer < first_layer || last_layer >= layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("--layers is outside of the model: first=", first_layer, " last=", last_layer, " layers=", layers));
  }
  const at::Tensor norms = at::norm(difference_LD, 2, {1}, /*keepdim=*/true);
  const double least = kZeroNorm * at::amax(norms).item<double>();
  const auto has_direction = [&](int64_t layer) { return norms[layer].item<double>() > least; };
  while (first_layer <= last_layer && !has_direction(first_layer)) ++first_layer;
  if (first_layer > last_layer) return absl::FailedPreconditionError("no layer of the range has a direction");
  int64_t last = first_layer;
  while (last < last_layer && has_direction(last + 1)) ++last;
  space.first_layer_ = first_layer;
  space.last_layer_ = last;
  space.difference_LD_ = difference_LD / norms.clamp_min(least);
  space.negative_mean_LD_ = negative_mean_LD;
  space.knots_ = std::min<size_t>(kKnots, static_cast<size_t>(layers));
  return space;
}

SearchParameters SearchSpace::Decode(const steer::Point& point) const {
  SearchParameters parameters;
  parameters.layer = first_layer() + point[0] * (last_layer() - first_layer());
  parameters.projected = point[1];
  parameters.embedding = point[2];
  parameters.attention = kMaxStrength * point[3];
  parameters.mlp = kMaxStrength * point[4];
  parameters.profile.assign(point.begin() + 5, point.end());
  return parameters;
}

steer::Point SearchSpace::Encode(const SearchParameters& parameters) const {
  const double width = last_layer() - first_layer();
  steer::Point point = {width > 0 ? std::clamp((parameters.layer - first_layer()) / width, 0.0, 1.0) : 0.0,
                        parameters.projected, parameters.embedding, parameters.attention / kMaxStrength,
                        parameters.mlp / kMaxStrength};
  point.insert(point.end(), parameters.profile.begin(), parameters.profile.end());
  return point;
}

std::vector<double> SearchSpace::LayerStrengths(const SearchParameters& parameters) const {
  std::vector<double> strengths;
  for (int64_t layer = 0; layer < num_layers(); ++layer) {
    if (knots_ == 1) {
      strengths.push_back(parameters.profile[0]);
      continue;
    }
    const double at = static_cast<double>(layer) * static_cast<double>(knots_ - 1) / static_cast<double>(num_layers() - 1);
    const size_t knot = std::min(static_cast<size_t>(at), knots_ - 2);
    const double share = at - static_cast<double>(knot);
    strengths.push_back(parameters.profile[knot] * (1 - share) + parameters.profile[knot + 1] * share);
  }
  return strengths;
}

absl::StatusOr<edit::EditSpec> SearchSpace::SpecOf(const SearchParameters& parameters) const {
  std::vector<double> direction = Values(Between(difference_LD_, parameters.layer));
  if (parameters.projected > 0) {
    BEARING_ASSIGN_OR_RETURN(const std::vector<double> rest,
                             edit::WithoutSharedPart(direction, Values(Between(negative_mean_LD_, parameters.layer))));
    for (size_t i = 0; i < direction.size(); ++i) direction[i] += parameters.projected * (rest[i] - direction[i]);
  }
  edit::EditSpec spec;
  spec.directions.push_back(std::move(direction));
  spec.components[sharding::Component::kEmbedding] = parameters.embedding;
  spec.components[sharding::Component::kAttention] = parameters.attention;
  spec.components[sharding::Component::kMlp] = parameters.mlp;
  const std::vector<double> strengths = LayerStrengths(parameters);
  for (size_t layer = 0; layer < strengths.size(); ++layer) spec.layers[static_cast<int64_t>(layer)] = strengths[layer];
  return spec;
}

std::vector<steer::Point> SearchSpace::Start(double layer) const {
  SearchParameters whole;
  whole.layer = layer;
  whole.profile.assign(knots_, 1.0);
  SearchParameters projected = whole;
  projected.projected = 1;
  SearchParameters blocks = whole;
  blocks.embedding = 0;
  return {Encode(whole), Encode(projected), Encode(blocks)};
}

nlohmann::json ParametersJson(const SearchSpace& space, const SearchParameters& parameters) {
  return {{"layer", parameters.layer},
          {"projected", parameters.projected},
          {"embedding", parameters.embedding},
          {"attention", parameters.attention},
          {"mlp", parameters.mlp},
          {"layer_strengths", space.LayerStrengths(parameters)}};
}

}  // namespace bearing::worker
