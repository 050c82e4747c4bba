// Attention on the CPU against the same formula in fp64.
#include "worker/model/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace bearing::model {
namespace {

struct Case {
  std::string name;
  int64_t head_dim;
  int64_t heads;
  int64_t kv_heads;
  int64_t queries;
  double softcap = 0;
  int64_t window = 0;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class AttentionTest : public testing::TestWithParam<std::tuple<Case, at::ScalarType>> {};

// Keys of a prefix in the batch, of a cache row, and of the segment itself, in this order.
TEST_P(AttentionTest, IsSoftmaxOfScoresTimesValues) {
  const Case& c = std::get<0>(GetParam());
  const at::ScalarType dtype = std::get<1>(GetParam());
  at::manual_seed(7);
  AttentionShape shape{.num_heads = c.heads,
                       .num_kv_heads = c.kv_heads,
                       .head_dim = c.head_dim,
                       .scale = 1 / std::sqrt(static_cast<double>(c.head_dim)),
                       .logit_softcap = c.softcap,
                       .window = c.window,
                       .kv_head_of = {}};
  for (int64_t h = 0; h < c.heads; ++h) shape.kv_head_of.push_back(h * c.kv_heads / c.heads);
  const int64_t columns = c.kv_heads * c.head_dim;
  const at::Tensor queries = at::randn({c.queries + 3, c.heads * c.head_dim + 5}).to(dtype);
  // Wider than what is read, so that rows are not neighbours.
  const at::Tensor batch = at::randn({40, 2 * columns + 3}).to(dtype);
  const at::Tensor cache = at::randn({50, 2 * columns}).to(dtype);
  const std::array<KeyValues, 2> sources = {KeyValues{batch.narrow(1, 0, columns), batch.narrow(1, columns, columns)},
                                            KeyValues{cache.narrow(1, 0, columns), cache.narrow(1, columns, columns)}};
  AttentionRow row{.begin = 2, .num_queries = c.queries, .spans = {}, .num_spans = 3};
  row.spans[0] = {KeySource::kBatch, 3, 5};
  row.spans[1] = {KeySource::kCache, 7, 18};
  row.spans[2] = {KeySource::kBatch, 20, c.queries};

  const at::Tensor got = Attend(shape, queries, {&row, 1}, sources).narrow(0, 2, c.queries).to(at::kDouble);

  const auto gather = [&](const at::Tensor& from_batch, const at::Tensor& from_cache) {
    return at::cat({from_batch.narrow(0, 3, 5), from_cache.narrow(0, 7, 18), from_batch.narrow(0, 20, c.queries)})
        .to(at::kDouble);
  };
  const at::Tensor keys = gather(sources[0].keys, sources[1].keys);
  const at::Tensor values = gather(sources[0].values, sources[1].values);
  const int64_t n = keys.size(0);
  for (int64_t h = 0; h < c.heads; ++h) {
    const auto head = [&](const at::Tensor& of, int64_t which) { return of.narrow(1, which * c.head_dim, c.head_dim); };
    const int64_t kv = shape.kv_head_of[h];
    at::Tensor scores = at::mm(head(queries.narrow(0, 2, c.queries).to(at::kDouble), h), head(keys, kv).t()) * shape.scale;
    if (c.softcap > 0) scores = c.softcap * at::tanh(scores / c.softcap);
    for (int64_t i = 0; i < c.queries; ++i) {
      const int64_t end = n - c.queries + 1 + i;
      if (end < n) scores[i].narrow(0, end, n - end).fill_(-INFINITY);
      if (c.window > 0 && end > c.window) scores[i].narrow(0, 0, end - c.window).fill_(-INFINITY);
    }
    const at::Tensor want = at::mm(at::softmax(scores, 1), head(values, kv));
    const double difference = at::max(at::abs(head(got, h) - want)).item<double>();
    EXPECT_LT(difference, dtype == at::kFloat ? 2e-6 : 2e-2) << "head " << h;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionTest,
    testing::Combine(testing::Values(Case{"OneTokenGrouped", 64, 9, 3, 1}, Case{"OneTokenOfSevenHeads", 32, 14, 2, 1},
                                     Case{"OneTokenOfOddHead", 24, 4, 4, 1}, Case{"OneTokenInWindow", 16, 4, 2, 1, 0, 9},
                                     Case{"OneTokenCapped", 48, 2, 1, 1, 20}, Case{"Prompt", 64, 6, 2, 13},
                                     Case{"PromptOfOddHead", 20, 3, 3, 2}, Case{"PromptInWindow", 16, 4, 2, 11, 30, 6}),
                     testing::Values(at::kFloat, at::kBFloat16)),
    [](const auto& info) { return std::get<0>(info.param).name + c10::toString(std::get<1>(info.param)); });

}  // namespace
}  // namespace bearing::model
