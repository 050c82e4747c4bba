// What the weights of a rank take on disk and in memory: sums over ParamLayout with the ranges of the ShardPlan, so uneven
// cuts, tied embeddings and copies of KV heads come out exactly.
#ifndef BEARING_JOBS_PLAN_WEIGHT_MEMORY_H_
#define BEARING_JOBS_PLAN_WEIGHT_MEMORY_H_

#include <cstdint>

#include "jobs/plan/machine.h"
#include "sharding/model_config.h"
#include "sharding/param_layout.h"
#include "sharding/shard_plan.h"

namespace bearing::jobs {

// How a weight is held (worker/model/linear.h, weight_loader.h).
struct HoldingTypes {
  int64_t stored_bytes = 4;   // Of an element on disk.
  int64_t compute_bytes = 4;  // Of the activations.
  int64_t product_bytes = 4;  // Of a weight in a product: of the compute type, or 4 where that is widened.
  bool packed = false;        // A product keeps a copy of its own; the tensor that was read is dropped.
};

// dtype: of the compute type, "float32" or "bfloat16".
HoldingTypes HoldingOf(const sharding::ModelConfig& config, const std::string& dtype, const Machine& machine);

// The same for weights that are streamed: those to be widened stay of the compute type, and are widened a block at a time.
HoldingTypes StreamedHoldingOf(const HoldingTypes& resident);

// Bytes of one rank.
struct WeightMemory {
  int64_t stored = 0;         // Its slices on disk; equals RankPlan::weight_bytes.
  int64_t read = 0;           // What reading them transfers: a tensor cut along its columns is read whole.
  int64_t read_layers = 0;    // The part of it inside the layers.
  int64_t held = 0;           // In memory, when loaded.
  int64_t loading = 0;        // At the worst moment of loading.
  int64_t largest_layer = 0;  // Held, of one layer.
  int64_t ends = 0;           // Held, outside the layers.
};

WeightMemory WeightMemoryOf(const sharding::ModelConfig& config, const sharding::ParamLayout& layout,
                            const sharding::RankPlan& rank, const HoldingTypes& types);

// Elements of all tensors as stored: the parameters of the model.
int64_t NumParameters(const sharding::ParamLayout& layout);

// Elements of the tensors that the edit changes and of all others, and the bytes of the largest part that it makes at once.
struct EditSize {
  int64_t edited = 0;
  int64_t copied = 0;
  int64_t largest_part = 0;
};
EditSize EditSizeOf(const sharding::ParamLayout& layout, int64_t stored_bytes);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_WEIGHT_MEMORY_H_
