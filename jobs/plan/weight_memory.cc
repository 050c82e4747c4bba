#include "jobs/plan/weight_memory.h"

#include <algorithm>
#include <map>
#include <utility>

#include "sharding/dtype.h"
#include "sharding/memory_rules.h"

namespace bearing::jobs {
namespace {

using sharding::ParamEntry;
using sharding::ParamRole;

int64_t Elements(const ParamEntry& entry) {
  int64_t elements = 1;
  for (const int64_t size : entry.shape) elements *= size;
  return elements;
}

int64_t SliceElements(const ParamEntry& entry, const sharding::RankPlan& rank) {
  const int64_t whole = entry.shape[entry.cut_axis];
  return whole == 0 ? 0 : Elements(entry) / whole * sharding::SliceOf(entry, rank).size();
}

bool IsNorm(ParamRole role) {
  switch (role) {
    case ParamRole::kFinalNorm:
    case ParamRole::kInputNorm:
    case ParamRole::kQueryNorm:
    case ParamRole::kKeyNorm:
    case ParamRole::kAttentionPostNorm:
    case ParamRole::kMlpNorm:
    case ParamRole::kMlpPostNorm:
      return true;
    default:
      return false;
  }
}

// Roles that one product stacks share a key.
ParamRole ProductOf(ParamRole role) {
  switch (role) {
    case ParamRole::kKey:
    case ParamRole::kValue:
      return ParamRole::kQuery;
    case ParamRole::kUp:
      return ParamRole::kGate;
    case ParamRole::kExpertUp:
      return ParamRole::kExpertGate;
    case ParamRole::kSharedUp:
      return ParamRole::kSharedGate;
    default:
      return role;
  }
}

}  // namespace

HoldingTypes HoldingOf(const sharding::ModelConfig& config, const std::string& dtype, const Machine& machine) {
  HoldingTypes types;
  types.stored_bytes = sharding::DTypeSize(config.dtype);
  types.compute_bytes = dtype == "bfloat16" ? 2 : 4;
  const bool widened = types.compute_bytes == 2 && machine.gemm_path.rfind("widened", 0) == 0;
  types.product_bytes = widened ? 4 : types.compute_bytes;
  types.packed = machine.gemm_path.find("packed") != std::string::npos;
  return types;
}

HoldingTypes StreamedHoldingOf(const HoldingTypes& resident) {
  HoldingTypes types = resident;
  const bool widened = resident.product_bytes > resident.compute_bytes;
  types.product_bytes = resident.compute_bytes;
  types.packed = resident.packed && !widened;
  return types;
}

WeightMemory WeightMemoryOf(const sharding::ModelConfig& config, const sharding::ParamLayout& layout,
                            const sharding::RankPlan& rank, const HoldingTypes& types) {
  WeightMemory memory;
  std::map<int64_t, int64_t> layers;
  std::map<std::pair<ParamRole, int64_t>, int64_t> products;  // Elements of a product, by role and layer; the last expert's.
  const auto held_product = [&](int64_t elements) { return elements * types.product_bytes; };
  int64_t last_expert = -1;
  for (const ParamEntry& entry : layout.entries()) {
    const int64_t elements = SliceElements(entry, rank);
    memory.stored += elements * types.stored_bytes;
    const int64_t read = (entry.cut_axis == 1 ? Elements(entry) : elements) * types.stored_bytes;
    memory.read += read;
    if (entry.layer >= 0) memory.read_layers += read;
    const bool is_copy = entry.role == ParamRole::kUnembedding && config.tied_embeddings;
    if (is_copy) continue;  // A tied model that stores it twice: only the embedding is read.
    int64_t held = held_product(elements);
    if (entry.role == ParamRole::kEmbedding) held = elements * types.stored_bytes;
    if (IsNorm(entry.role)) held = elements * 4;
    memory.held += held;
    (entry.layer < 0 ? memory.ends : layers[entry.layer]) += held;
    if (entry.layer < 0 || IsNorm(entry.role)) continue;
    int64_t& product = products[{ProductOf(entry.role), entry.layer}];
    if (entry.expert != last_expert) product = 0;
    last_expert = entry.expert;
    product += elements;
  }
  const ParamEntry* embedding = layout.Find(ParamRole::kEmbedding);
  const int64_t vocabulary = embedding == nullptr ? 0 : SliceElements(*embedding, rank);
  const bool shares = !types.packed && types.product_bytes == types.stored_bytes;
  if (config.tied_embeddings && !shares) {
    memory.held += held_product(vocabulary);
    memory.ends += held_product(vocabulary);
  }
  for (const auto& [layer, bytes] : layers) memory.largest_layer = std::max(memory.largest_layer, bytes);
  // Above what is held in the end: the tensor as it was read and, when it is packed, converted.
  const int64_t extra = (shares ? 0 : types.stored_bytes) + (types.packed ? types.product_bytes : 0);
  int64_t largest = 0;
  for (const auto& [key, elements] : products) largest = std::max(largest, elements);
  memory.loading = std::max(memory.held + largest * extra, memory.ends + vocabulary * extra);
  return memory;
}

int64_t NumParameters(const sharding::ParamLayout& layout) {
  int64_t elements = 0;
  for (const ParamEntry& entry : layout.entries()) elements += Elements(entry);
  return elements;
}

EditSize EditSizeOf(const sharding::ParamLayout& layout, int64_t stored_bytes) {
  EditSize size;
  for (const ParamEntry& entry : layout.entries()) {
    const int64_t elements = Elements(entry);
    (entry.writes_residual ? size.edited : size.copied) += elements;
    if (!entry.writes_residual) continue;
    const bool rows_independent = entry.shape.size() == 2 && entry.residual_axis == 1;
    // A matrix whose columns are summed is made at once, other tensors in pieces.
    const int64_t at_once = rows_independent || elements * stored_bytes > sharding::kEditMatrixBytes ? sharding::kEditPieceBytes
                                                                                                     : elements * stored_bytes;
    size.largest_part = std::max(size.largest_part, std::min(elements * stored_bytes, at_once));
  }
  return size;
}

}  // namespace bearing::jobs
