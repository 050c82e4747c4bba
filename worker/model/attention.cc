#include "worker/model/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "worker/model/vector_math.h"

namespace bearing::model {
namespace {

constexpr int64_t kLanes = 8;          // Floats of a register of AVX2. Wider vector types end up in memory there.
constexpr int64_t kTile = 2 * kLanes;  // Columns a micro-kernel holds in registers.
constexpr int64_t kQueryTile = 4;      // Rows it holds.

typedef float Lane __attribute__((vector_size(kLanes * sizeof(float))));

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Neither needs alignment.
[[gnu::always_inline]] inline void GetLane(const float* in, Lane& lane) { std::memcpy(&lane, in, sizeof(lane)); }
[[gnu::always_inline]] inline void PutLane(const Lane& lane, float* out) { std::memcpy(out, &lane, sizeof(lane)); }

// C[m, n] = A[m, k] B[k, n], or C += A B; all row-major, n a multiple of kTile. A has RoundUp(m, kQueryTile) readable rows, C
// as many to write.
template <bool kAdd>
[[gnu::always_inline]] inline void MultiplyTiles(const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                                                 int64_t ldc, int64_t m, int64_t k, int64_t n) {
  for (int64_t i = 0; i < m; i += kQueryTile) {
    for (int64_t j = 0; j < n; j += kTile) {
      const float* a0 = a + i * lda;
      float* const c0 = c + i * ldc + j;
      Lane acc00 = {}, acc01 = {}, acc10 = {}, acc11 = {}, acc20 = {}, acc21 = {}, acc30 = {}, acc31 = {};
      if constexpr (kAdd) {
        GetLane(c0, acc00), GetLane(c0 + kLanes, acc01);
        GetLane(c0 + ldc, acc10), GetLane(c0 + ldc + kLanes, acc11);
        GetLane(c0 + 2 * ldc, acc20), GetLane(c0 + 2 * ldc + kLanes, acc21);
        GetLane(c0 + 3 * ldc, acc30), GetLane(c0 + 3 * ldc + kLanes, acc31);
      }
      for (int64_t p = 0; p < k; ++p) {
        Lane row0, row1;
        GetLane(b + p * ldb + j, row0), GetLane(b + p * ldb + j + kLanes, row1);
        acc00 += a0[p] * row0, acc01 += a0[p] * row1;
        acc10 += a0[lda + p] * row0, acc11 += a0[lda + p] * row1;
        acc20 += a0[2 * lda + p] * row0, acc21 += a0[2 * lda + p] * row1;
        acc30 += a0[3 * lda + p] * row0, acc31 += a0[3 * lda + p] * row1;
      }
      PutLane(acc00, c0), PutLane(acc01, c0 + kLanes);
      PutLane(acc10, c0 + ldc), PutLane(acc11, c0 + ldc + kLanes);
      PutLane(acc20, c0 + 2 * ldc), PutLane(acc21, c0 + 2 * ldc + kLanes);
      PutLane(acc30, c0 + 3 * ldc), PutLane(acc31, c0 + 3 * ldc + kLanes);
    }
  }
}

BEARING_MULTIVERSION void MultiplySmall(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc,
                                        int64_t m, int64_t k, int64_t n) {
  MultiplyTiles<false>(a, lda, b, ldb, c, ldc, m, k, n);
}

BEARING_MULTIVERSION void AddProduct(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t m,
                                     int64_t k, int64_t n) {
  MultiplyTiles<true>(a, lda, b, ldb, c, ldc, m, k, n);
}

// C[m, n] = A[m, k] B[n, k]^T, k a multiple of kLanes: for so few rows of A that transposing B would cost more than the
// product.
BEARING_MULTIVERSION void MultiplyTransposed(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc,
                                             int64_t m, int64_t k, int64_t n) {
  for (int64_t i = 0; i < m; i += kQueryTile) {
    for (int64_t j = 0; j < n; ++j) {
      const float* a0 = a + i * lda;
      const float* const row = b + j * ldb;
      Lane acc0 = {}, acc1 = {}, acc2 = {}, acc3 = {};
      for (int64_t p = 0; p < k; p += kLanes) {
        Lane lane, lane0, lane1, lane2, lane3;
        GetLane(row + p, lane);
        GetLane(a0 + p, lane0), GetLane(a0 + lda + p, lane1);
        GetLane(a0 + 2 * lda + p, lane2), GetLane(a0 + 3 * lda + p, lane3);
        acc0 += lane0 * lane;
        acc1 += lane1 * lane;
        acc2 += lane2 * lane;
        acc3 += lane3 * lane;
      }
      // Pairwise sums of four accumulators at once.
      const Lane low = __builtin_shufflevector(acc0, acc1, 0, 8, 1, 9, 4, 12, 5, 13) +
                       __builtin_shufflevector(acc0, acc1, 2, 10, 3, 11, 6, 14, 7, 15);
      const Lane high = __builtin_shufflevector(acc2, acc3, 0, 8, 1, 9, 4, 12, 5, 13) +
                        __builtin_shufflevector(acc2, acc3, 2, 10, 3, 11, 6, 14, 7, 15);
      const Lane sums = __builtin_shufflevector(low, high, 0, 1, 8, 9, 4, 5, 12, 13) +
                        __builtin_shufflevector(low, high, 2, 3, 10, 11, 6, 7, 14, 15);
      float* const c0 = c + i * ldc + j;
      for (int64_t r = 0; r < kQueryTile; ++r) c0[r * ldc] = sums[r] + sums[r + 4];
    }
  }
}

// s <- cap * tanh(scale * s / cap).
BEARING_MULTIVERSION void SoftcapRow(float* s, float scale, float cap, int64_t n) {
  const float twice = 2.0f * scale / cap;
  for (int64_t j = 0; j < n; ++j) s[j] = cap * (1.0f - 2.0f / (1.0f + FastExp(twice * s[j])));
}

// Softmax of scale * s over the columns [first, end); the rest becomes 0.
BEARING_MULTIVERSION void SoftmaxRow(float* s, float scale, int64_t first, int64_t end, int64_t width) {
  float top = s[first];
  for (int64_t j = first + 1; j < end; ++j) top = std::max(top, s[j]);
  float sum = 0;
  for (int64_t j = first; j < end; ++j) {
    const float e = FastExp((s[j] - top) * scale);
    s[j] = e;
    sum += e;
  }
  const float inverse = 1.0f / sum;
  for (int64_t j = 0; j < first; ++j) s[j] = 0;
  for (int64_t j = first; j < end; ++j) s[j] *= inverse;
  for (int64_t j = end; j < width; ++j) s[j] = 0;
}

inline void Load(const float* in, float* out, int64_t n) { std::memcpy(out, in, n * sizeof(float)); }

inline void Load(const c10::BFloat16* in, float* out, int64_t n) { Widen(in, out, n); }

inline void Store(const float* in, float* out, int64_t n) { std::memcpy(out, in, n * sizeof(float)); }

inline void Store(const float* in, c10::BFloat16* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = c10::BFloat16(in[i]);
}

BEARING_MULTIVERSION void Transpose(const float* in, int64_t n, int64_t width, float* out, int64_t ldo) {
  for (int64_t e = 0; e < width; ++e) {
    for (int64_t j = 0; j < n; ++j) out[e * ldo + j] = in[j * width + e];
  }
}

struct Scratch {
  std::vector<float> queries, keys, keys_transposed, values, scores, out;
};

// Where a span's keys or values of one head lie, with the step between rows.
template <typename T>
struct HeadRows {
  const T* rows;
  int64_t step;
};

template <typename T>
HeadRows<T> RowsOf(const at::Tensor& source, const KeySpan& span, int64_t kv_head, int64_t e) {
  const int64_t step = source.stride(0);
  return {source.const_data_ptr<T>() + span.begin * step + kv_head * e, step};
}

// fp32 rows are used where they lie, others widened into `scratch`.
HeadRows<float> AsFloat(HeadRows<float> head, int64_t, int64_t, std::vector<float>&) { return head; }

HeadRows<float> AsFloat(HeadRows<c10::BFloat16> head, int64_t count, int64_t e, std::vector<float>& scratch) {
  scratch.resize(count * e);
  for (int64_t j = 0; j < count; ++j) Load(head.rows + j * head.step, scratch.data() + j * e, e);
  return {scratch.data(), e};
}

// Queries of one sequence that read one KV head, m in all.
template <typename T>
class HeadAttention {
 public:
  HeadAttention(const AttentionShape& shape, const AttentionRow& row, const std::array<KeyValues, 2>& sources, int64_t kv_head,
                absl::Span<const int64_t> heads, Scratch& scratch)
      : shape_(shape), row_(row), sources_(sources), kv_head_(kv_head), heads_(heads), scratch_(scratch) {
    for (int i = 0; i < row.num_spans; ++i) n_ += row.spans[i].count;
    n_padded_ = RoundUp(n_, kTile);
  }

  void Run(const at::Tensor& queries, at::Tensor& result) {
    LoadQueries(queries);
    scratch_.scores.resize(m_padded_ * n_padded_);
    scratch_.out.resize(m_padded_ * e_padded_);
    // Of one new token the keys are read once or twice: where they lie. Of a prompt, many times: gathered and transposed.
    if (row_.num_queries == 1 && e_ % kTile == 0) {
      ScoreInPlace();
      Softmax();
      MixInPlace();
    } else {
      Gather();
      MultiplySmall(scratch_.queries.data(), e_, scratch_.keys_transposed.data(), n_padded_, scratch_.scores.data(), n_padded_,
                    m_, e_, n_padded_);
      Softmax();
      MultiplySmall(scratch_.scores.data(), n_padded_, scratch_.values.data(), e_padded_, scratch_.out.data(), e_padded_, m_,
                    n_, e_padded_);
    }
    StoreResult(result);
  }

 private:
  const KeyValues& SourceOf(const KeySpan& span) const { return sources_[static_cast<size_t>(span.source)]; }

  void LoadQueries(const at::Tensor& queries) {
    scratch_.queries.resize(m_padded_ * e_);
    std::fill(scratch_.queries.begin() + m_ * e_, scratch_.queries.end(), 0.0f);
    const T* q = queries.const_data_ptr<T>();
    for (size_t h = 0; h < heads_.size(); ++h) {
      for (int64_t i = 0; i < s_; ++i) {
        Load(q + (row_.begin + i) * queries.stride(0) + heads_[h] * e_, scratch_.queries.data() + (h * s_ + i) * e_, e_);
      }
    }
  }

  void ScoreInPlace() {
    int64_t at = 0;
    for (int i = 0; i < row_.num_spans; ++i) {
      const KeySpan& span = row_.spans[i];
      const auto keys = AsFloat(RowsOf<T>(SourceOf(span).keys, span, kv_head_, e_), span.count, e_, scratch_.keys);
      MultiplyTransposed(scratch_.queries.data(), e_, keys.rows, keys.step, scratch_.scores.data() + at, n_padded_, m_, e_,
                         span.count);
      at += span.count;
    }
  }

  void MixInPlace() {
    std::fill(scratch_.out.begin(), scratch_.out.end(), 0.0f);
    int64_t at = 0;
    for (int i = 0; i < row_.num_spans; ++i) {
      const KeySpan& span = row_.spans[i];
      const auto values = AsFloat(RowsOf<T>(SourceOf(span).values, span, kv_head_, e_), span.count, e_, scratch_.values);
      AddProduct(scratch_.scores.data() + at, n_padded_, values.rows, values.step, scratch_.out.data(), e_padded_, m_,
                 span.count, e_padded_);
      at += span.count;
    }
  }

  void Gather() {
    scratch_.keys.resize(n_ * e_);
    scratch_.values.assign(n_ * e_padded_, 0.0f);
    scratch_.keys_transposed.assign(e_ * n_padded_, 0.0f);
    int64_t at = 0;
    for (int i = 0; i < row_.num_spans; ++i) {
      const KeySpan& span = row_.spans[i];
      const HeadRows<T> keys = RowsOf<T>(SourceOf(span).keys, span, kv_head_, e_);
      const HeadRows<T> values = RowsOf<T>(SourceOf(span).values, span, kv_head_, e_);
      for (int64_t j = 0; j < span.count; ++j, ++at) {
        Load(keys.rows + j * keys.step, scratch_.keys.data() + at * e_, e_);
        Load(values.rows + j * values.step, scratch_.values.data() + at * e_padded_, e_);
      }
    }
    Transpose(scratch_.keys.data(), n_, e_, scratch_.keys_transposed.data(), n_padded_);
  }

  void Softmax() {
    const auto scale = static_cast<float>(shape_.scale);
    const auto cap = static_cast<float>(shape_.logit_softcap);
    for (int64_t r = 0; r < m_; ++r) {
      float* const scores = scratch_.scores.data() + r * n_padded_;
      const int64_t end = n_ - s_ + 1 + r % s_;
      const int64_t first = shape_.window > 0 ? std::max<int64_t>(end - shape_.window, 0) : 0;
      if (cap > 0) SoftcapRow(scores + first, scale, cap, end - first);
      SoftmaxRow(scores, cap > 0 ? 1.0f : scale, first, end, n_padded_);
    }
    std::fill(scratch_.scores.begin() + m_ * n_padded_, scratch_.scores.end(), 0.0f);
  }

  void StoreResult(at::Tensor& result) {
    T* out = result.data_ptr<T>();
    for (size_t h = 0; h < heads_.size(); ++h) {
      for (int64_t i = 0; i < s_; ++i) {
        Store(scratch_.out.data() + (h * s_ + i) * e_padded_, out + (row_.begin + i) * result.stride(0) + heads_[h] * e_, e_);
      }
    }
  }

  const AttentionShape& shape_;
  const AttentionRow& row_;
  const std::array<KeyValues, 2>& sources_;
  const int64_t kv_head_;
  const absl::Span<const int64_t> heads_;
  Scratch& scratch_;
  const int64_t e_ = shape_.head_dim;
  const int64_t e_padded_ = RoundUp(e_, kTile);
  const int64_t s_ = row_.num_queries;
  const int64_t m_ = s_ * static_cast<int64_t>(heads_.size());
  const int64_t m_padded_ = RoundUp(m_, kQueryTile);
  int64_t n_ = 0;  // Keys.
  int64_t n_padded_ = 0;
};

}  // namespace

at::Tensor Attend(const AttentionShape& shape, const at::Tensor& queries, absl::Span<const AttentionRow> rows,
                  const std::array<KeyValues, 2>& sources) {
  at::Tensor result = at::empty({queries.size(0), shape.num_heads * shape.head_dim}, queries.options());
  std::vector<std::vector<int64_t>> heads_of(shape.num_kv_heads);
  for (int64_t h = 0; h < shape.num_heads; ++h) heads_of[shape.kv_head_of[h]].push_back(h);
  const int64_t units = static_cast<int64_t>(rows.size()) * shape.num_kv_heads;
  at::parallel_for(0, units, 1, [&](int64_t from, int64_t to) {
    Scratch scratch;
    for (int64_t unit = from; unit < to; ++unit) {
      const AttentionRow& row = rows[unit / shape.num_kv_heads];
      const int64_t kv_head = unit % shape.num_kv_heads;
      if (queries.scalar_type() == at::kFloat) {
        HeadAttention<float>(shape, row, sources, kv_head, heads_of[kv_head], scratch).Run(queries, result);
      } else {
        HeadAttention<c10::BFloat16>(shape, row, sources, kv_head, heads_of[kv_head], scratch).Run(queries, result);
      }
    }
  });
  return result;
}

}  // namespace bearing::model
