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

constexpr int64_t kTile = 16;      // Columns a micro-kernel holds in registers.
constexpr int64_t kQueryTile = 4;  // Rows it holds.

// kTile floats: one register of AVX-512, two of AVX2. Loads need no alignment.
typedef float Lane __attribute__((vector_size(kTile * sizeof(float)), aligned(sizeof(float))));

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// C[m, n] = A[m, k] B[k, n], all row-major; n is a multiple of kTile, A has RoundUp(m, kQueryTile) readable rows.
BEARING_MULTIVERSION void MultiplySmall(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc,
                                        int64_t m, int64_t k, int64_t n) {
  for (int64_t i = 0; i < m; i += kQueryTile) {
    for (int64_t j = 0; j < n; j += kTile) {
      const float* a0 = a + i * lda;
      Lane acc0 = {}, acc1 = {}, acc2 = {}, acc3 = {};
      for (int64_t p = 0; p < k; ++p) {
        const Lane row = *reinterpret_cast<const Lane*>(b + p * ldb + j);
        acc0 += a0[p] * row;
        acc1 += a0[lda + p] * row;
        acc2 += a0[2 * lda + p] * row;
        acc3 += a0[3 * lda + p] * row;
      }
      float* const c0 = c + i * ldc + j;
      *reinterpret_cast<Lane*>(c0) = acc0;
      *reinterpret_cast<Lane*>(c0 + ldc) = acc1;
      *reinterpret_cast<Lane*>(c0 + 2 * ldc) = acc2;
      *reinterpret_cast<Lane*>(c0 + 3 * ldc) = acc3;
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

template <typename T>
void AttendRow(const AttentionShape& shape, const at::Tensor& queries, const AttentionRow& row,
               const std::array<KeyValues, 3>& sources, int64_t kv_head, absl::Span<const int64_t> heads, at::Tensor& result,
               Scratch& scratch) {
  const int64_t e = shape.head_dim;
  const int64_t e_padded = RoundUp(e, kTile);
  const int64_t s = row.num_queries;
  const int64_t m = s * static_cast<int64_t>(heads.size());
  const int64_t m_padded = RoundUp(m, kQueryTile);
  int64_t n = 0;
  for (int i = 0; i < row.num_spans; ++i) n += row.spans[i].count;
  const int64_t n_padded = RoundUp(n, kTile);

  scratch.keys.resize(n * e);
  scratch.values.assign(n * e_padded, 0.0f);
  scratch.keys_transposed.assign(e * n_padded, 0.0f);
  scratch.queries.assign(m_padded * e, 0.0f);
  scratch.scores.assign(m_padded * n_padded, 0.0f);
  scratch.out.resize(m_padded * e_padded);

  int64_t at = 0;
  for (int i = 0; i < row.num_spans; ++i) {
    const KeySpan& span = row.spans[i];
    const KeyValues& source = sources[static_cast<size_t>(span.source)];
    const int64_t key_step = source.keys.stride(0);
    const int64_t value_step = source.values.stride(0);
    const T* keys = source.keys.const_data_ptr<T>() + span.begin * key_step + kv_head * e;
    const T* values = source.values.const_data_ptr<T>() + span.begin * value_step + kv_head * e;
    for (int64_t j = 0; j < span.count; ++j, ++at) {
      Load(keys + j * key_step, scratch.keys.data() + at * e, e);
      Load(values + j * value_step, scratch.values.data() + at * e_padded, e);
    }
  }
  Transpose(scratch.keys.data(), n, e, scratch.keys_transposed.data(), n_padded);

  const T* q = queries.const_data_ptr<T>();
  for (size_t h = 0; h < heads.size(); ++h) {
    for (int64_t i = 0; i < s; ++i) {
      Load(q + (row.begin + i) * queries.stride(0) + heads[h] * e, scratch.queries.data() + (h * s + i) * e, e);
    }
  }
  MultiplySmall(scratch.queries.data(), e, scratch.keys_transposed.data(), n_padded, scratch.scores.data(), n_padded, m, e,
                n_padded);
  const auto scale = static_cast<float>(shape.scale);
  const auto cap = static_cast<float>(shape.logit_softcap);
  for (int64_t r = 0; r < m; ++r) {
    float* const scores = scratch.scores.data() + r * n_padded;
    const int64_t end = n - s + 1 + r % s;
    const int64_t first = shape.window > 0 ? std::max<int64_t>(end - shape.window, 0) : 0;
    if (cap > 0) SoftcapRow(scores + first, scale, cap, end - first);
    SoftmaxRow(scores, cap > 0 ? 1.0f : scale, first, end, n_padded);
  }
  MultiplySmall(scratch.scores.data(), n_padded, scratch.values.data(), e_padded, scratch.out.data(), e_padded, m, n, e_padded);

  T* out = result.data_ptr<T>();
  for (size_t h = 0; h < heads.size(); ++h) {
    for (int64_t i = 0; i < s; ++i) {
      Store(scratch.out.data() + (h * s + i) * e_padded, out + (row.begin + i) * result.stride(0) + heads[h] * e, e);
    }
  }
}

}  // namespace

at::Tensor Attend(const AttentionShape& shape, const at::Tensor& queries, absl::Span<const AttentionRow> rows,
                  const std::array<KeyValues, 3>& sources) {
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
        AttendRow<float>(shape, queries, row, sources, kv_head, heads_of[kv_head], result, scratch);
      } else {
        AttendRow<c10::BFloat16>(shape, queries, row, sources, kv_head, heads_of[kv_head], result, scratch);
      }
    }
  });
  return result;
}

}  // namespace bearing::model
