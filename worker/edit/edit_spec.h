// What an edit is to do, independent of a model: the directions and how strongly they go where (docs/edit.md).
#ifndef BEARING_WORKER_EDIT_EDIT_SPEC_H_
#define BEARING_WORKER_EDIT_EDIT_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "sharding/edit_family.h"

namespace bearing::edit {

// A vector added to the residual stream at the input of a block, at every position: written as a bias.
struct Addition {
  int64_t layer = 0;
  std::vector<double> vector;  // [d_model], factor included.
};

// What becomes of a checkpoint whose weights are MXFP4.
enum class QuantizedOutput {
  kKeep,      // Edited weights are quantized again, all others stay as they are.
  kBfloat16,  // All of them are widened: a plain BF16 checkpoint.
};

struct EditSpec {
  // To remove; any length but 0, made orthonormal in this order. Empty with an addition alone.
  std::vector<std::vector<double>> directions;
  // Strength of a tensor: strength * component * layer. 1 removes all of it, 0 leaves the tensor alone.
  double strength = 1.0;
  std::map<sharding::Component, double> components;  // Those not named: 1.
  std::map<int64_t, double> layers;                  // Those not named: 1.
  // Only these layers, both included; the embedding and the projector count with layer 0.
  int64_t first_layer = 0;
  std::optional<int64_t> last_layer;
  bool preserve_norms = false;
  bool keep_tied = false;
  bool projector = false;
  QuantizedOutput quantized = QuantizedOutput::kKeep;
  std::optional<Addition> addition;

  // All of the directions out of everything that writes them, and nothing else: then the edited model is the ablated one.
  bool IsWholeRemoval() const {
    return !directions.empty() && strength == 1.0 && components.empty() && layers.empty() && first_layer == 0 && !last_layer &&
           !preserve_norms && !addition;
  }
  bool ReachesLayer(int64_t layer) const {
    const int64_t counted = layer < 0 ? 0 : layer;
    return counted >= first_layer && (!last_layer || counted <= *last_layer);
  }
  double StrengthOf(sharding::Component component, int64_t layer) const {
    if (directions.empty() || !ReachesLayer(layer)) return 0.0;
    const auto of_component = components.find(component);
    const auto of_layer = layers.find(layer < 0 ? 0 : layer);
    return strength * (of_component != components.end() ? of_component->second : 1.0) *
           (of_layer != layers.end() ? of_layer->second : 1.0);
  }
};

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_EDIT_SPEC_H_
