#include "worker/model/layer_store.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <future>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/model/device_memory.h"

namespace bearing::model {
namespace {

class ResidentLayers final : public LayerStore {
 public:
  explicit ResidentLayers(std::vector<LayerWeights> layers) : layers_(std::move(layers)) {}

  absl::StatusOr<const LayerWeights*> Get(int64_t layer) override { return &layers_[layer]; }
  Residency residency() const override { return Residency::kResident; }
  int64_t layers_read() const override { return static_cast<int64_t>(layers_.size()); }

 private:
  std::vector<LayerWeights> layers_;
};

class StreamedLayers final : public LayerStore {
 public:
  StreamedLayers(const WeightLoader& loader, int64_t num_layers, const at::Device& device)
      : loader_(loader), num_layers_(num_layers), queue_(device) {}

  ~StreamedLayers() override {
    if (next_.valid()) next_.wait();
  }

  absl::StatusOr<const LayerWeights*> Get(int64_t layer) override {
    if (layer == current_layer_) return &current_;
    if (layer != next_layer_) StartReading(layer);  // Out of order: what was read ahead is of no use.
    absl::StatusOr<LayerWeights> read = next_.get();
    next_layer_ = -1;
    BEARING_RETURN_IF_ERROR(read.status());
    queue_.UseLoaded();
    current_ = *std::move(read);  // Frees the layer before, whose place the next one may take: see LoadQueue.
    current_layer_ = layer;
    StartReading((layer + 1) % num_layers_);
    return &current_;
  }

  Residency residency() const override { return Residency::kStreamed; }
  int64_t layers_read() const override { return layers_read_; }

 private:
  void StartReading(int64_t layer) {
    if (next_.valid()) next_.wait();
    next_layer_ = layer;
    ++layers_read_;
    queue_.StartLoading();
    next_ = std::async(std::launch::async, [this, layer]() -> absl::StatusOr<LayerWeights> {
      at::set_num_threads(1);  // Of this thread: the cores belong to the products.
      try {
        std::optional<c10::StreamGuard> guard;
        queue_.EnterLoading(guard);
        absl::StatusOr<LayerWeights> weights = loader_.LoadLayer(layer);
        queue_.FinishLoading();
        return weights;
      } catch (const c10::Error& error) {
        return absl::InternalError(absl::StrCat("libtorch, reading layer ", layer, ": ", error.what_without_backtrace()));
      } catch (const std::bad_alloc&) {
        return absl::ResourceExhaustedError(absl::StrCat("out of memory reading layer ", layer));
      }
    });
  }

  const WeightLoader loader_;
  const int64_t num_layers_;
  LoadQueue queue_;
  LayerWeights current_;
  int64_t current_layer_ = -1;
  std::future<absl::StatusOr<LayerWeights>> next_;
  int64_t next_layer_ = -1;
  int64_t layers_read_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LayerStore>> LoadResidentLayers(const WeightLoader& loader, int64_t num_layers,
                                                               const std::function<void(int64_t done)>& progress) {
  std::vector<LayerWeights> layers;
  layers.reserve(num_layers);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    BEARING_ASSIGN_OR_RETURN(layers.emplace_back(), loader.LoadLayer(layer));
    progress(layer + 1);
  }
  return std::make_unique<ResidentLayers>(std::move(layers));
}

std::unique_ptr<LayerStore> StreamLayers(const WeightLoader& loader, int64_t num_layers, const at::Device& device) {
  return std::make_unique<StreamedLayers>(loader, num_layers, device);
}

}  // namespace bearing::model
