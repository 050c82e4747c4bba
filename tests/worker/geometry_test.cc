// Geometry from a Gram matrix against the same figures from the rows themselves.
#include "worker/steer/geometry.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace bearing::steer {
namespace {

struct Sets {
  at::Tensor rows;  // [N, D] fp64, positives first.
  int64_t positives;
  at::Tensor gram() const { return at::mm(rows, rows.t()); }
};

Sets RandomSets(int64_t positives, int64_t negatives, int64_t d, double apart) {
  at::manual_seed(static_cast<uint64_t>(positives * 100 + negatives));
  Sets sets{at::randn({positives + negatives, d}, at::kDouble), positives};
  sets.rows.mul_(at::linspace(0.2, 2, d, at::kDouble)).add_(3);
  sets.rows.narrow(0, 0, positives).add_(apart * at::randn({d}, at::kDouble));
  return sets;
}

TEST(GeometryTest, EqualsWhatTheRowsGive) {
  for (const auto& [positives, negatives, d] : {std::tuple<int64_t, int64_t, int64_t>{7, 12, 5}, {20, 4, 64}, {3, 3, 2}}) {
    const Sets sets = RandomSets(positives, negatives, d, 0.7);
    const LayerGeometry got = GeometryOfGram(sets.gram(), positives);
    const at::Tensor positive = sets.rows.narrow(0, 0, positives), negative = sets.rows.narrow(0, positives, negatives);
    const at::Tensor difference = positive.mean(0) - negative.mean(0);
    const double norm = at::norm(difference).item<double>();
    EXPECT_NEAR(got.difference_norm, norm, 1e-9 * norm);
    EXPECT_NEAR(got.positive_norm, at::norm(positive, 2, {1}).mean().item<double>(), 1e-9);
    EXPECT_NEAR(got.negative_norm_spread, at::std(at::norm(negative, 2, {1}), false).item<double>(), 1e-9);

    // Principal components by the singular values of the centered rows.
    const at::Tensor centered = sets.rows - sets.rows.mean(0);
    const auto [u, s, v] = at::linalg_svd(centered, /*full_matrices=*/false);
    const at::Tensor share = s.pow(2) / s.pow(2).sum();
    EXPECT_NEAR(got.pc1_share, share[0].item<double>(), 1e-9);
    EXPECT_NEAR(got.pc2_share, share[1].item<double>(), 1e-9);
    EXPECT_NEAR(got.pc1_cosine, std::fabs(at::dot(v[0], difference).item<double>()) / norm, 1e-7);
    const at::Tensor scores = at::mv(centered, v[0]);
    const at::Tensor pc1 = at::tensor(got.pc1, at::kDouble);
    const double same = std::min(at::max(at::abs(pc1 - scores)).item<double>(), at::max(at::abs(pc1 + scores)).item<double>());
    EXPECT_LT(same, 1e-6);
    EXPECT_GT(pc1.narrow(0, 0, positives).mean().item<double>(), pc1.narrow(0, positives, negatives).mean().item<double>());

    const at::Tensor along = at::mv(sets.rows, difference / norm);
    double wins = 0;
    for (int64_t i = 0; i < positives; ++i) {
      EXPECT_NEAR(got.projections[i], along[i].item<double>(), 1e-8);
      for (int64_t j = positives; j < positives + negatives; ++j) {
        wins += along[i].item<double>() > along[j].item<double>() ? 1 : 0;
      }
    }
    EXPECT_NEAR(got.auroc, wins / static_cast<double>(positives * negatives), 1e-12);

    const at::Tensor distances = at::cdist(sets.rows, sets.rows);
    double silhouette = 0;
    const int64_t n = positives + negatives;
    for (int64_t i = 0; i < n; ++i) {
      double own = 0, other = 0;
      for (int64_t j = 0; j < n; ++j) {
        ((i < positives) == (j < positives) ? own : other) += distances[i][j].item<double>();
      }
      const double a = own / static_cast<double>((i < positives ? positives : negatives) - 1);
      const double b = other / static_cast<double>(i < positives ? negatives : positives);
      silhouette += (b - a) / std::max(a, b) / static_cast<double>(n);
    }
    EXPECT_NEAR(got.silhouette, silhouette, 1e-6);
  }
}

TEST(GeometryTest, SetsFarApartAreSeparate) {
  const Sets sets = RandomSets(30, 30, 40, 50);
  const LayerGeometry got = GeometryOfGram(sets.gram(), 30);
  EXPECT_EQ(got.auroc, 1);
  EXPECT_GT(got.silhouette, 0.9);
  EXPECT_GT(got.pc1_cosine, 0.999);
  EXPECT_GT(got.pc1_share, 0.9);
}

// Tied embeddings of one token: layer 0 of a chat template's last token.
TEST(GeometryTest, EqualRowsHaveNoDirection) {
  const at::Tensor rows = at::ones({6, 4}, at::kDouble);
  const LayerGeometry got = GeometryOfGram(at::mm(rows, rows.t()), 3);
  EXPECT_EQ(got.difference_norm, 0);
  EXPECT_EQ(got.pc1_cosine, 0);
  EXPECT_EQ(got.auroc, 0.5);
  EXPECT_EQ(got.silhouette, 0);
  EXPECT_EQ(got.positive_norm, 2);
}

TEST(GeometryTest, OneRowASideHasNoSilhouette) {
  const Sets sets = RandomSets(1, 1, 8, 1);
  const LayerGeometry got = GeometryOfGram(sets.gram(), 1);
  EXPECT_EQ(got.silhouette, 0);
  EXPECT_EQ(got.auroc, 1);
  EXPECT_NEAR(got.pc1_share, 1, 1e-12);
}

TEST(GeometryTest, CosinesOfLayersAndPositions) {
  at::manual_seed(3);
  at::Tensor difference = at::randn({2, 3, 16}, at::kDouble);  // [P, L, D]
  difference[0][2] = -4 * difference[0][1];
  difference[1][1] = 1e-7 * difference[1][1];  // Rounding.
  const DirectionCosines got = CosinesOfDirections(difference, 1e-5);
  ASSERT_EQ(got.layers_PLL.sizes(), (std::vector<int64_t>{2, 3, 3}));
  ASSERT_EQ(got.positions_LPP.sizes(), (std::vector<int64_t>{3, 2, 2}));
  EXPECT_NEAR(got.layers_PLL[0][1][2].item<double>(), -1, 1e-12);
  EXPECT_NEAR(got.layers_PLL[0][1][1].item<double>(), 1, 1e-12);
  const auto cosine = [](const at::Tensor& a, const at::Tensor& b) {
    return (at::dot(a, b) / at::norm(a) / at::norm(b)).item<double>();
  };
  EXPECT_NEAR(got.layers_PLL[1][0][2].item<double>(), cosine(difference[1][0], difference[1][2]), 1e-12);
  EXPECT_NEAR(got.positions_LPP[2][0][1].item<double>(), cosine(difference[0][2], difference[1][2]), 1e-12);
  EXPECT_TRUE(std::isnan(got.layers_PLL[1][0][1].item<double>()));
  EXPECT_TRUE(std::isnan(got.positions_LPP[1][0][1].item<double>()));
  EXPECT_NEAR(got.positions_LPP[1][0][0].item<double>(), 1, 1e-12);
}

TEST(GeometryTest, RowsOfTheFirstPromptsAreKept) {
  CapturedBatch batch;
  batch.range = {4, 9};
  batch.own = {0, 2, 4};  // Prompts 4, 6, 8.
  batch.residual_NLPD = at::arange(3 * 2 * 2 * 3, at::kFloat).view({3, 2, 2, 3});
  const std::vector<bool> keep = {true, true, false, true, true};
  LastRows all(/*max_rows=*/8, /*among_first=*/true);
  all.Add(batch, keep);
  at::Tensor out = at::zeros({4, 3});
  all.CopyLayer(1, {4, 5, 6, 8}, out);
  EXPECT_TRUE(at::equal(out[0], batch.residual_NLPD[0][1][1]));
  // 6 was not kept, 8 is not among the first eight, 5 is another rank's.
  EXPECT_EQ(out.narrow(0, 1, 3).abs().sum().item<float>(), 0);
  LastRows filtered(/*max_rows=*/1, /*among_first=*/false);
  filtered.Add(batch, keep);
  out.zero_();
  filtered.CopyLayer(0, {4, 8}, out);
  EXPECT_TRUE(at::equal(out[0], batch.residual_NLPD[0][0][1]));
  EXPECT_EQ(out[1].abs().sum().item<float>(), 0);
}

}  // namespace
}  // namespace bearing::steer
