// What a search varies, as points of the unit cube, and what a point does to a model: a removal with strengths, which is an
// intervention here and an edit of weights there (docs/search.md).
//
// Axes, in this order: layer of the direction (between layers: of the interpolated unit directions), share of what the
// direction has in common with the mean of the negative prompts that is taken out of it, strengths of embedding, attention and
// MLP, and a profile over the layers: factors at evenly spaced layers, linear in between. The strength of a write is component
// x layer, as in docs/edit.md.
#ifndef BEARING_WORKER_SEARCH_SEARCH_SPACE_H_
#define BEARING_WORKER_SEARCH_SEARCH_SPACE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/edit/edit_spec.h"
#include "worker/steer/search/mo_cma.h"

namespace bearing::worker {

struct SearchParameters {
  double layer = 0;
  double projected = 0;  // 0 = the direction as it is, 1 = the projected variant of docs/edit.md.
  double embedding = 1, attention = 1, mlp = 1;
  std::vector<double> profile;  // Factors at the knots.
};

// A value type; thread-safe.
class SearchSpace {
 public:
  static constexpr double kMaxStrength = 1.5;  // Of attention and MLP; the embedding's is 1.
  static constexpr size_t kKnots = 5;          // Fewer in models of fewer layers.

  // `difference_LD` and `negative_mean_LD` fp64: of the position that is searched. FailedPrecondition when no layer of
  // [first_layer, last_layer] has a direction.
  static absl::StatusOr<SearchSpace> Make(const at::Tensor& difference_LD, const at::Tensor& negative_mean_LD,
                                          int64_t first_layer, int64_t last_layer);

  size_t dimension() const { return 5 + knots_; }
  int64_t num_layers() const { return difference_LD_.size(0); }
  int64_t d_model() const { return difference_LD_.size(1); }
  // Layers between which directions are taken: those of the range that have one, from the first on without a gap.
  double first_layer() const { return static_cast<double>(first_layer_); }
  double last_layer() const { return static_cast<double>(last_layer_); }

  SearchParameters Decode(const steer::Point& point) const;
  steer::Point Encode(const SearchParameters& parameters) const;

  // The factor of each layer.
  std::vector<double> LayerStrengths(const SearchParameters& parameters) const;

  // InvalidArgument when nothing is left of a projected direction.
  absl::StatusOr<edit::EditSpec> SpecOf(const SearchParameters& parameters) const;

  // What a search starts from: the whole removal of the direction of `layer`, and variants of it.
  std::vector<steer::Point> Start(double layer) const;

 private:
  SearchSpace() = default;

  at::Tensor difference_LD_, negative_mean_LD_;
  int64_t first_layer_ = 0;
  int64_t last_layer_ = 0;
  size_t knots_ = kKnots;
};

// The parameters and the layers' factors as fields of a JSON object.
nlohmann::json ParametersJson(const SearchSpace& space, const SearchParameters& parameters);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SEARCH_SEARCH_SPACE_H_
