// Keys and values of the rows of a generation. The prefill's keys stay where the prefill put them, the shared prefix stored
// once a group; each row adds its decoded tokens to a buffer of its own.
#ifndef BEARING_WORKER_MODEL_KV_CACHE_H_
#define BEARING_WORKER_MODEL_KV_CACHE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace bearing::model {

struct KvCache {
  struct Row {
    int64_t prefix_begin = 0, prefix_count = 0;  // In the prefill: the parent's tokens.
    int64_t own_begin = 0, own_count = 0;        // In the prefill: the row's own.
    int64_t decoded = 0;                         // Tokens decoded so far.
  };

  int64_t prefill_tokens = 0;
  int64_t max_new = 0;  // Room for decoded tokens a row.
  // Of each layer [prefill_tokens + rows * max_new, 2 * kv_heads * head_dim], keys before values: the prefill's tokens, then
  // each row's decoded ones.
  std::vector<at::Tensor> layers;
  std::vector<Row> rows;

  // Where a row's next token lies in a layer.
  int64_t NextSlot(int row) const { return prefill_tokens + row * max_new + rows[row].decoded; }

  // Position of the next token of a row.
  int64_t NextPosition(int row) const { return rows[row].prefix_count + rows[row].own_count + rows[row].decoded; }
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_KV_CACHE_H_
