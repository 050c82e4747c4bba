// Both implementations of the operations of a block (worker/model/ops.h) against formulas in fp64. On a machine with a device,
// device_test.cc runs those of ATen there.
#include "worker/model/kernels.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/worker/ops_conformance.h"
#include "worker/model/aten_attention.h"
#include "worker/model/linear.h"

namespace bearing::model {
namespace {

using testing::OpsCase;

std::vector<OpsCase> CpuCases() {
  return {{"own kernels", &CpuOps(), at::kFloat, at::kCPU},
          {"own kernels", &CpuOps(), at::kBFloat16, at::kCPU},
          {"ATen", &AtenOps(), at::kFloat, at::kCPU},
          {"ATen", &AtenOps(), at::kBFloat16, at::kCPU}};
}

}  // namespace

namespace testing {
INSTANTIATE_TEST_SUITE_P(Cpu, OpsTest, ::testing::ValuesIn(CpuCases()));
}  // namespace testing

namespace {

TEST(ScatterAddRowsTest, AddsWeightedRowsWhereTheyBelong) {
  at::manual_seed(7);
  at::Tensor out = at::randn({5, 6});
  const at::Tensor y = at::randn({2, 6});
  at::Tensor want = out.clone();
  want[3].add_(y[0], 0.25);
  want[1].add_(y[1], -2);
  const std::vector<int64_t> rows = {3, 1};
  const std::vector<float> weights = {0.25f, -2.0f};
  ScatterAddRows(out, y, rows, weights);
  EXPECT_LT(at::amax(at::abs(out - want)).item<float>(), 1e-6);
}

std::vector<AttentionRow> RowsOfSizes(const std::vector<std::pair<int64_t, int64_t>>& queries_and_keys) {
  std::vector<AttentionRow> rows;
  for (const auto& [queries, keys] : queries_and_keys) {
    AttentionRow row;
    row.num_queries = queries;
    row.num_spans = 1;
    row.spans[0] = {KeySource::kBatch, 0, keys};
    rows.push_back(row);
  }
  return rows;
}

TEST(BucketRowsTest, PutsLikeRowsTogetherAndSmallOnesWithAnybody) {
  EXPECT_TRUE(BucketRows({}).empty());
  using Buckets = std::vector<std::vector<size_t>>;
  // 2000 x 2000 pairs: the short rows would be padded to as much.
  EXPECT_EQ(BucketRows(RowsOfSizes({{400, 500}, {2000, 2000}, {390, 450}, {2000, 2100}})), (Buckets{{1, 3}, {0, 2}}));
  EXPECT_EQ(BucketRows(RowsOfSizes({{8, 40}, {32, 32}, {1, 33}})), (Buckets{{0, 1, 2}}));
}

TEST(BucketRowsTest, PaddingAtMostDoublesTheWorkBeyondALittle) {
  at::manual_seed(5);
  const at::Tensor sizes = at::randint(1, 900, {200, 2}, at::kLong);
  std::vector<std::pair<int64_t, int64_t>> rows;
  for (int64_t i = 0; i < 200; ++i) {
    const int64_t queries = sizes[i][0].item<int64_t>();
    rows.emplace_back(queries, queries + sizes[i][1].item<int64_t>());
  }
  std::vector<int> seen(rows.size(), 0);
  const auto buckets = BucketRows(RowsOfSizes(rows));
  for (const std::vector<size_t>& bucket : buckets) {
    int64_t queries = 0, keys = 0, work = 0;
    for (const size_t r : bucket) {
      ++seen[r];
      queries = std::max(queries, rows[r].first);
      keys = std::max(keys, rows[r].second);
      work += rows[r].first * rows[r].second;
    }
    EXPECT_LE(static_cast<int64_t>(bucket.size()) * queries * keys, 2 * work + static_cast<int64_t>(bucket.size()) * 4096);
  }
  EXPECT_EQ(seen, std::vector<int>(rows.size(), 1));
  EXPECT_LT(buckets.size(), 60u);
}

TEST(LinearTest, EveryPathGivesTheProduct) {
  at::manual_seed(3);
  const at::Tensor w = at::randn({33, 20}), b = at::randn({33}), x = at::randn({7, 20});
  const at::Tensor want = at::linear(x, w, b);
  for (const GemmPath path : {GemmPath::kPlain, GemmPath::kPacked}) {
    EXPECT_LT(at::amax(at::abs(Linear(w, b, at::kFloat, path).Forward(x) - want)).item<float>(), 1e-4) << GemmPathName(path);
  }
  for (const GemmPath path : {GemmPath::kPlain, GemmPath::kWidened, GemmPath::kWidenedPacked, GemmPath::kWidenedBlocks}) {
    const at::Tensor y = Linear(w, b, at::kBFloat16, path).Forward(x.to(at::kBFloat16));
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_LT(at::amax(at::abs(y.to(at::kFloat) - want)).item<float>(), 0.3) << GemmPathName(path);
  }
  EXPECT_FALSE(GemmPathFromName("fastest").has_value());
  EXPECT_TRUE(GemmPathFromName(GemmPathName(ChooseGemmPath(at::kFloat))).has_value());
  EXPECT_TRUE(GemmPathFromName(GemmPathName(ChooseStreamedGemmPath(at::kBFloat16))).has_value());

  // More elements than are widened at once: three blocks, the last of another size.
  const at::Tensor wide = at::randn({2500, 16384}), row = at::randn({3, 16384}) / 128;
  const at::Tensor whole = Linear(wide, at::Tensor(), at::kBFloat16, GemmPath::kWidened).ForwardFloat(row.to(at::kBFloat16));
  const at::Tensor blocks =
      Linear(wide, at::Tensor(), at::kBFloat16, GemmPath::kWidenedBlocks).ForwardFloat(row.to(at::kBFloat16));
  EXPECT_LT(at::amax(at::abs(blocks - whole)).item<float>(), 1e-4);
}

}  // namespace
}  // namespace bearing::model
