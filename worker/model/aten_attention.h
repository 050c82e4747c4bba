// Attention over the rows of a packed batch with operations of ATen, on any device.
//
// On CUDA in half precision, where the flash kernel takes the layer (no softcap, heads of 8 to 256 elements in eights), all
// rows go through it at once, back to back, with no padding. Elsewhere rows of like size are put together in buckets, padded to
// the longest of their bucket and masked; each bucket is one call of scaled_dot_product_attention, or with a softcap the
// formula.
#ifndef BEARING_WORKER_MODEL_ATEN_ATTENTION_H_
#define BEARING_WORKER_MODEL_ATEN_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/model/attention.h"

namespace bearing::model {

// Rows put together so that padding at most doubles the work of each: indices into the list of rows, ascending in each bucket.
// Rows of little work share a bucket whatever their sizes, since starting another one costs more. Pure.
std::vector<std::vector<size_t>> BucketRows(absl::Span<const AttentionRow> rows);

// How rows attend, worked out when first needed and used by all layers of a pass. Not thread-safe.
class AttentionPlan {
 public:
  // All rows read from one source.
  AttentionPlan(std::vector<AttentionRow> rows, const at::Device& device) : rows_(std::move(rows)), device_(device) {}

  // The rows' outputs in their order, [sum of num_queries, num_heads * head_dim]. Otherwise as model::Attend. In bfloat16 the
  // fused kernels round the weights of the values to bfloat16; sums are fp32.
  at::Tensor Attend(const AttentionShape& shape, const at::Tensor& queries, const std::array<KeyValues, 2>& sources);

 private:
  // Rows padded to `queries` queries and `keys` keys each.
  struct Bucket {
    int64_t rows = 0, queries = 0, keys = 0;
    at::Tensor query_index;                // [rows * queries] into the query matrix.
    at::Tensor key_index;                  // [rows * keys] into the source.
    at::Tensor padded_index, dense_index;  // Where a real output is in the bucket, and where it goes.
    at::Tensor last_key;                   // [rows, queries, 1] the last key that a query sees.
    struct Mask {
      int64_t window;
      int64_t repeats;
      at::Tensor bias;  // [rows, 1, queries * repeats, keys]: 0, or -inf where a query does not see the key.
    };
    std::vector<Mask> masks;
  };
  // All rows back to back.
  struct Dense {
    at::Tensor query_index, key_index;  // [sum of queries], [sum of keys]
    at::Tensor query_begin, key_begin;  // int32 [rows + 1]
    int64_t most_queries = 0, most_keys = 0;
    bool all_queries = false;  // query_index is 0, 1, 2, ...
  };

  void MakeBuckets();
  void MakeDense();
  static const at::Tensor& MaskOf(Bucket& bucket, int64_t window, int64_t repeats, at::ScalarType type);
  at::Tensor AttendBucket(Bucket& bucket, const AttentionShape& shape, const at::Tensor& queries,
                          const KeyValues& source) const;
  at::Tensor AttendDense(const AttentionShape& shape, const at::Tensor& queries, const KeyValues& source) const;

  const std::vector<AttentionRow> rows_;
  const at::Device device_;
  int64_t num_queries_ = 0;
  std::vector<Bucket> buckets_;
  Dense dense_;
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_ATEN_ATTENTION_H_
