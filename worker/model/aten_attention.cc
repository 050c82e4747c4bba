#include "worker/model/aten_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "worker/model/device_memory.h"

namespace bearing::model {
namespace {

constexpr int64_t kKeysMultiple = 16;     // Fused kernels read masks in blocks of so many keys.
constexpr int64_t kLittleWork = 64 * 64;  // Pairs of query and key that a row may be padded by in any case.

int64_t NumKeys(const AttentionRow& row) {
  int64_t n = 0;
  for (int i = 0; i < row.num_spans; ++i) n += row.spans[i].count;
  return n;
}

void AppendKeys(const AttentionRow& row, std::vector<int64_t>& index) {
  for (int i = 0; i < row.num_spans; ++i) {
    for (int64_t j = 0; j < row.spans[i].count; ++j) index.push_back(row.spans[i].begin + j);
  }
}

// [n, kv_heads * head_dim] -> [n, kv_heads, head_dim], where each query head reads a head of its own if the heads are not
// spread evenly (a rank may hold a part of a group).
at::Tensor SplitHeads(const AttentionShape& shape, const at::Tensor& x, int64_t& repeats) {
  const at::Tensor heads = x.unflatten(1, {shape.num_kv_heads, shape.head_dim});
  repeats = shape.num_heads / shape.num_kv_heads;
  bool even = repeats * shape.num_kv_heads == shape.num_heads;
  for (int64_t h = 0; even && h < shape.num_heads; ++h) even = shape.kv_head_of[h] == h / repeats;
  if (even) return heads;
  repeats = 1;
  std::vector<at::Tensor> own;
  for (const int64_t head : shape.kv_head_of) own.push_back(heads.select(1, head));
  return at::stack(own, 1);
}

bool TakesFlash(const AttentionShape& shape, const at::Tensor& queries) {
  return queries.is_cuda() && queries.scalar_type() != at::kFloat && shape.logit_softcap == 0 && shape.head_dim % 8 == 0 &&
         shape.head_dim <= 256;
}

}  // namespace

std::vector<std::vector<size_t>> BucketRows(absl::Span<const AttentionRow> rows) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto work = [&](size_t i) { return rows[i].num_queries * NumKeys(rows[i]); };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return work(a) > work(b); });
  std::vector<std::vector<size_t>> buckets;
  int64_t queries = 0;
  int64_t keys = 0;
  for (const size_t i : order) {
    queries = std::max(queries, rows[i].num_queries);
    keys = std::max(keys, NumKeys(rows[i]));
    // This row has the least work of its bucket: if it is not padded too much, none is.
    if (!buckets.empty() && queries * keys <= 2 * work(i) + kLittleWork) {
      buckets.back().push_back(i);
      continue;
    }
    buckets.push_back({i});
    queries = rows[i].num_queries;
    keys = NumKeys(rows[i]);
  }
  for (std::vector<size_t>& bucket : buckets) std::sort(bucket.begin(), bucket.end());
  return buckets;
}

void AttentionPlan::MakeBuckets() {
  std::vector<int64_t> begin_of;  // Of each row's outputs.
  for (const AttentionRow& row : rows_) {
    begin_of.push_back(num_queries_);
    num_queries_ += row.num_queries;
  }
  for (const std::vector<size_t>& members : BucketRows(rows_)) {
    Bucket bucket;
    bucket.rows = static_cast<int64_t>(members.size());
    for (const size_t m : members) {
      bucket.queries = std::max(bucket.queries, rows_[m].num_queries);
      bucket.keys = std::max(bucket.keys, NumKeys(rows_[m]));
    }
    bucket.keys = (bucket.keys + kKeysMultiple - 1) / kKeysMultiple * kKeysMultiple;
    std::vector<int64_t> query_index, key_index, padded, dense, last_key;
    for (size_t b = 0; b < members.size(); ++b) {
      const AttentionRow& row = rows_[members[b]];
      const int64_t num_keys = NumKeys(row);
      for (int64_t i = 0; i < bucket.queries; ++i) {
        // Padding repeats the row's last query, so that it sees keys as well.
        const int64_t q = std::min(i, row.num_queries - 1);
        query_index.push_back(row.begin + q);
        last_key.push_back(num_keys - row.num_queries + q);
        if (i >= row.num_queries) continue;
        padded.push_back(static_cast<int64_t>(b) * bucket.queries + i);
        dense.push_back(begin_of[members[b]] + i);
      }
      AppendKeys(row, key_index);
      key_index.resize((b + 1) * bucket.keys, row.spans[0].begin);
    }
    std::vector<at::Tensor> sent = SendLists({{query_index, key_index, padded, dense, last_key}}, device_);
    bucket.query_index = std::move(sent[0]);
    bucket.key_index = std::move(sent[1]);
    bucket.padded_index = std::move(sent[2]);
    bucket.dense_index = std::move(sent[3]);
    bucket.last_key = sent[4].view({bucket.rows, bucket.queries, 1});
    buckets_.push_back(std::move(bucket));
  }
}

void AttentionPlan::MakeDense() {
  std::vector<int64_t> query_index, key_index;
  std::vector<int64_t> query_begin = {0};
  std::vector<int64_t> key_begin = {0};
  for (const AttentionRow& row : rows_) {
    for (int64_t i = 0; i < row.num_queries; ++i) query_index.push_back(row.begin + i);
    AppendKeys(row, key_index);
    query_begin.push_back(static_cast<int64_t>(query_index.size()));
    key_begin.push_back(static_cast<int64_t>(key_index.size()));
    dense_.most_queries = std::max(dense_.most_queries, row.num_queries);
    dense_.most_keys = std::max(dense_.most_keys, NumKeys(row));
  }
  dense_.all_queries = true;
  for (size_t i = 0; i < query_index.size(); ++i) dense_.all_queries &= query_index[i] == static_cast<int64_t>(i);
  std::vector<at::Tensor> sent = SendLists({{query_index, key_index, query_begin, key_begin}}, device_);
  dense_.query_index = std::move(sent[0]);
  dense_.key_index = std::move(sent[1]);
  dense_.query_begin = sent[2].to(at::kInt);
  dense_.key_begin = sent[3].to(at::kInt);
}

const at::Tensor& AttentionPlan::MaskOf(Bucket& bucket, int64_t window, int64_t repeats, at::ScalarType type) {
  for (const Bucket::Mask& mask : bucket.masks) {
    if (mask.window == window && mask.repeats == repeats && mask.bias.scalar_type() == type) return mask.bias;
  }
  const at::Tensor key = at::arange(bucket.keys, bucket.last_key.options()).view({1, 1, bucket.keys});
  at::Tensor hidden = key.gt(bucket.last_key);
  if (window > 0) hidden.logical_or_(key.le(bucket.last_key - window));
  at::Tensor bias = at::zeros(hidden.sizes(), hidden.options().dtype(type));
  bias.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  bias = bias.repeat_interleave(repeats, 1, bucket.queries * repeats).unsqueeze(1);
  bucket.masks.push_back({window, repeats, bias});
  return bucket.masks.back().bias;
}

at::Tensor AttentionPlan::AttendBucket(Bucket& bucket, const AttentionShape& shape, const at::Tensor& queries,
                                       const KeyValues& source) const {
  const int64_t width = shape.num_heads * shape.head_dim;
  int64_t repeats = 1;
  const auto keyed = [&](const at::Tensor& x) {
    return SplitHeads(shape, x.index_select(0, bucket.key_index), repeats)
        .unflatten(0, {bucket.rows, bucket.keys})
        .transpose(1, 2);
  };
  const at::Tensor keys = keyed(source.keys);  // [rows, kv_heads, keys, head_dim]
  const at::Tensor values = keyed(source.values);
  // The heads that read the same keys stand behind each other as queries: [rows, kv_heads, queries * repeats, head_dim].
  const at::Tensor asked = queries.narrow(1, 0, width)
                               .index_select(0, bucket.query_index)
                               .view({bucket.rows, bucket.queries, shape.num_heads / repeats, repeats, shape.head_dim})
                               .transpose(1, 2)
                               .flatten(2, 3);
  at::Tensor out;
  if (shape.logit_softcap == 0) {
    const at::Tensor& bias = MaskOf(bucket, shape.window, repeats, queries.scalar_type());
    out = at::scaled_dot_product_attention(asked, keys, values, bias, 0.0, false, shape.scale);
  } else {
    at::Tensor scores = at::matmul(asked.to(at::kFloat), keys.to(at::kFloat).transpose(2, 3));
    scores.mul_(shape.scale / shape.logit_softcap).tanh_().mul_(shape.logit_softcap);
    scores.add_(MaskOf(bucket, shape.window, repeats, at::kFloat));
    out = at::matmul(at::softmax(scores, -1), values.to(at::kFloat)).to(queries.scalar_type());
  }
  return out.unflatten(2, {bucket.queries, repeats}).transpose(1, 2).reshape({bucket.rows * bucket.queries, width});
}

// Not run by any test without a device.
at::Tensor AttentionPlan::AttendDense(const AttentionShape& shape, const at::Tensor& queries, const KeyValues& source) const {
  const int64_t width = shape.num_heads * shape.head_dim;
  const at::Tensor columns = queries.narrow(1, 0, width);
  const at::Tensor asked =
      dense_.all_queries ? columns.narrow(0, 0, dense_.query_index.size(0)) : columns.index_select(0, dense_.query_index);
  int64_t repeats = 1;
  const at::Tensor keys = SplitHeads(shape, source.keys.index_select(0, dense_.key_index), repeats);
  const at::Tensor values = SplitHeads(shape, source.values.index_select(0, dense_.key_index), repeats);
  const std::optional<c10::SymInt> left =
      shape.window > 0 ? std::optional<c10::SymInt>(shape.window - 1) : std::optional<c10::SymInt>();
  // Causal from the end: the last query sees all keys of its row, as AttentionRow says.
  const at::Tensor out = std::get<0>(at::_flash_attention_forward_symint(
      asked.unflatten(1, {shape.num_heads, shape.head_dim}), keys, values, dense_.query_begin, dense_.key_begin,
      dense_.most_queries, dense_.most_keys, /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false, shape.scale,
      left, std::nullopt, std::nullopt, std::nullopt));
  return out.reshape({out.size(0), width});
}

at::Tensor AttentionPlan::Attend(const AttentionShape& shape, const at::Tensor& queries,
                                 const std::array<KeyValues, 2>& sources) {
  if (rows_.empty()) return at::empty({0, shape.num_heads * shape.head_dim}, queries.options());
  const KeyValues& source = sources[static_cast<size_t>(rows_[0].spans[0].source)];
  if (TakesFlash(shape, queries)) {
    if (!dense_.query_index.defined()) MakeDense();
    return AttendDense(shape, queries, source);
  }
  if (buckets_.empty()) MakeBuckets();
  // Nothing is padded and in another order where one bucket has all rows, each with as many queries.
  if (buckets_.size() == 1 && buckets_[0].rows * buckets_[0].queries == num_queries_) {
    return AttendBucket(buckets_[0], shape, queries, source);
  }
  at::Tensor result = at::empty({num_queries_, shape.num_heads * shape.head_dim}, queries.options());
  for (Bucket& bucket : buckets_) {
    result.index_copy_(0, bucket.dense_index,
                       AttendBucket(bucket, shape, queries, source).index_select(0, bucket.padded_index));
  }
  return result;
}

}  // namespace bearing::model
