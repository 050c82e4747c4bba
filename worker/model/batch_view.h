// What the blocks need to know of a batch, worked out once for all of them: where each token stands, which keys each query
// sees, which rows each intervention covers.
#ifndef BEARING_WORKER_MODEL_BATCH_VIEW_H_
#define BEARING_WORKER_MODEL_BATCH_VIEW_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/model_config.h"
#include "worker/model/attention.h"
#include "worker/model/kv_cache.h"
#include "worker/model/packed_batch.h"

namespace bearing::model {

// Rows of x that a group covers. The batch owns the intervention.
struct GroupRows {
  const Intervention* intervention = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
};

class DeviceBatch;

struct BatchView {
  std::vector<int32_t> positions;  // Of each token in its sequence.
  std::vector<bool> is_long;       // Of each token: is its sequence longer than longrope's original context?
  int64_t longest = 0;             // Positions that occur: 0 to longest - 1.

  std::vector<int64_t> read;  // Tokens that are read.

  // Tokens of decode steps, and where their keys and values go in each layer of the cache.
  std::vector<int64_t> decoded_tokens, decoded_slots;

  // All tokens have queries (every block but the last); only those that are read do (the last block).
  std::vector<AttentionRow> rows, read_rows;
  std::vector<GroupRows> groups, read_groups;

  std::shared_ptr<DeviceBatch> on_device;  // Of the operations of ATen (ops.h); else null.
};

// `read`: ascending indices of tokens; of each segment none, or any number of its last ones (Internal if not). InvalidArgument
// when a sequence is longer than the model's positions, or when prompts on both sides of longrope's original context share a
// prefix. A batch holds either tokens of decode steps or others; Internal if not.
absl::StatusOr<BatchView> MakeBatchView(const sharding::ModelConfig& config, const PackedBatch& batch,
                                        absl::Span<const int64_t> read, const KvCache* cache);

// Length above which longrope uses its other frequencies; 0 when the model has no longrope.
int64_t LongRopeBoundary(const sharding::ModelConfig& config);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_BATCH_VIEW_H_
