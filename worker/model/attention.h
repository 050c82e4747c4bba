// Causal attention over a packed batch: every segment attends to the keys of its parent, of its cache row, and of itself.
#ifndef BEARING_WORKER_MODEL_ATTENTION_H_
#define BEARING_WORKER_MODEL_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace bearing::model {

// Where keys and values of a sequence lie.
enum class KeySource { kBatch, kCache };

// Keys and values of one source, [*, kv_heads * head_dim] with any row stride.
struct KeyValues {
  at::Tensor keys;
  at::Tensor values;
};

// Consecutive keys and values of one sequence: `count` rows of the source starting at `begin`.
struct KeySpan {
  KeySource source = KeySource::kBatch;
  int64_t begin = 0;
  int64_t count = 0;
};

// `num_queries` rows of the query matrix starting at `begin`; they are the last tokens of the keys that `spans` list in order,
// so query i sees all keys but the last num_queries - 1 - i.
struct AttentionRow {
  int64_t begin = 0;
  int64_t num_queries = 0;
  KeySpan spans[3];
  int num_spans = 0;
};

struct AttentionShape {
  int64_t num_heads = 0;     // Of this rank.
  int64_t num_kv_heads = 0;  // Of this rank.
  int64_t head_dim = 0;
  double scale = 0;
  double logit_softcap = 0;  // s <- c tanh(s / c); 0 = off.
  int64_t window = 0;        // Keys a query sees, its own included; 0 = all before it.
  // KV head (of this rank) that each query head (of this rank) reads.
  std::vector<int64_t> kv_head_of;
};

// On the CPU. queries [T, >= num_heads * head_dim] with any row stride; returns [T, num_heads * head_dim] of the same type.
// Scores and the softmax are in fp32. Rows of T that no AttentionRow covers are left uninitialized. `sources` is indexed by
// KeySource; those that no span names may be undefined.
at::Tensor Attend(const AttentionShape& shape, const at::Tensor& queries, absl::Span<const AttentionRow> rows,
                  const std::array<KeyValues, 2>& sources);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_ATTENTION_H_
