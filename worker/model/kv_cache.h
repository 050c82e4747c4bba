// Keys and values of the rows of a generation. The prefill's keys stay where the prefill put them, the shared prefix stored
// once a group; each row adds its decoded tokens to a buffer of its own.
#ifndef BEARING_WORKER_MODEL_KV_CACHE_H_
#define BEARING_WORKER_MODEL_KV_CACHE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace bearing::model {

struct KvCache {
  struct Layer {
    at::Tensor prefill_keys, prefill_values;  // [T of the prefill, kv_heads * head_dim]
    at::Tensor decoded_keys, decoded_values;  // [rows * max_new, kv_heads * head_dim]
  };
  struct Row {
    int64_t prefix_begin = 0, prefix_count = 0;  // In the prefill: the parent's tokens.
    int64_t own_begin = 0, own_count = 0;        // In the prefill: the row's own.
    int64_t decoded = 0;                         // Tokens decoded so far.
  };

  int64_t max_new = 0;  // Room for decoded tokens a row.
  std::vector<Layer> layers;
  std::vector<Row> rows;

  // Position of the next token of a row.
  int64_t NextPosition(int row) const { return rows[row].prefix_count + rows[row].own_count + rows[row].decoded; }
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_KV_CACHE_H_
