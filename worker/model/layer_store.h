// Where the weights of a layer come from: held in memory (resident), or read when the layer's turn comes while the one before
// it computes (streamed).
#ifndef BEARING_WORKER_MODEL_LAYER_STORE_H_
#define BEARING_WORKER_MODEL_LAYER_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/model/weight_loader.h"

namespace bearing::model {

enum class Residency { kResident, kStreamed };

// One thread uses it.
class LayerStore {
 public:
  virtual ~LayerStore() = default;

  // Valid until the next call. Errors are those of the reader; local to this rank.
  virtual absl::StatusOr<const LayerWeights*> Get(int64_t layer) = 0;

  virtual Residency residency() const = 0;

  // Layers that were read from disk so far.
  virtual int64_t layers_read() const = 0;
};

// Reads all layers now.
absl::StatusOr<std::unique_ptr<LayerStore>> LoadResidentLayers(const WeightLoader& loader, int64_t num_layers,
                                                               const std::function<void(int64_t done)>& progress);

// Holds two layers: the one in use and the next (behind the last comes the first), which a thread of its own reads and sends to
// the device beside the computation.
std::unique_ptr<LayerStore> StreamLayers(const WeightLoader& loader, int64_t num_layers, const at::Device& device);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_LAYER_STORE_H_
