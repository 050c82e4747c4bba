#include "worker/model/kernels.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "worker/model/attention.h"
#include "worker/model/linear.h"

namespace bearing::model {
namespace {

class KernelsTest : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { at::manual_seed(7); }
  at::ScalarType type() const { return GetParam(); }
  double tolerance() const { return type() == at::kFloat ? 2e-6 : 1e-2; }
  void ExpectNear(const at::Tensor& got, const at::Tensor& want) const {
    const double scale = at::amax(at::abs(want)).item<double>();
    EXPECT_LE(at::amax(at::abs(got.to(at::kDouble) - want)).item<double>(), tolerance() * scale);
  }
};

INSTANTIATE_TEST_SUITE_P(Types, KernelsTest, ::testing::Values(at::kFloat, at::kBFloat16));

TEST_P(KernelsTest, RmsNorm) {
  const at::Tensor x = at::randn({5, 37}).to(type());
  const at::Tensor w = at::randn({37}).to(type());
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor want = wide / at::sqrt(at::mean(wide * wide, {1}, true) + 1e-5) * w.to(at::kDouble);
  for (const bool cast_first : {true, false}) ExpectNear(RmsNorm(x, {w.to(at::kFloat), cast_first}, 1e-5), want);
}

TEST_P(KernelsTest, RmsNormHeadsNormalizesEachHeadAndLeavesOtherColumns) {
  at::Tensor x = at::randn({5, 4 * 6}).to(type());
  const at::Tensor w = at::randn({6}).to(type());
  at::Tensor want = x.to(at::kDouble).clone();
  const at::Tensor heads = want.narrow(1, 6, 12).reshape({5, 2, 6});
  want.narrow(1, 6, 12).copy_(
      (heads / at::sqrt(at::mean(heads * heads, {2}, true) + 1e-6) * w.to(at::kDouble)).reshape({5, 12}));
  RmsNormHeads(x, 6, 2, 6, {w.to(at::kFloat)}, 1e-6);
  ExpectNear(x, want);
}

TEST_P(KernelsTest, SiluMultiply) {
  const at::Tensor gate_up = (at::randn({6, 2 * 53}) * 8).to(type());
  const at::Tensor gate = gate_up.narrow(1, 0, 53).to(at::kDouble);
  ExpectNear(GatedActivation(gate_up, sharding::Activation::kSilu),
             gate * at::sigmoid(gate) * gate_up.narrow(1, 53, 53).to(at::kDouble));
}

TEST_P(KernelsTest, GeluTanhMultiply) {
  const at::Tensor gate_up = (at::randn({6, 2 * 53}) * 4).to(type());
  const at::Tensor gate = gate_up.narrow(1, 0, 53).to(at::kDouble);
  const at::Tensor tanh = at::tanh(std::sqrt(2.0 / std::numbers::pi) * (gate + 0.044715 * gate * gate * gate));
  ExpectNear(GatedActivation(gate_up, sharding::Activation::kGeluTanh),
             0.5 * gate * (1.0 + tanh) * gate_up.narrow(1, 53, 53).to(at::kDouble));
}

TEST_P(KernelsTest, SiluOfLargeValuesIsFinite) {
  at::Tensor gate_up = at::full({1, 4}, 1.0).to(type());
  gate_up[0][0] = -1000.0;
  gate_up[0][1] = 1000.0;
  const at::Tensor y = GatedActivation(gate_up, sharding::Activation::kSilu).to(at::kDouble);
  EXPECT_NEAR(y[0][0].item<double>(), 0.0, 1e-30);
  EXPECT_NEAR(y[0][1].item<double>(), 1000.0, 1.0);
}

TEST_P(KernelsTest, RopeTurnsPairsAndLeavesOtherColumns) {
  const int64_t e = 8;
  at::Tensor x = at::randn({3, 4 * e}).to(type());
  const at::Tensor before = x.to(at::kDouble).clone();
  const at::Tensor angle = at::randn({10, e / 2});
  const at::Tensor cos = at::cos(angle), sin = at::sin(angle);
  const std::vector<int32_t> positions = {0, 7, 3};
  ApplyRope(x, e, 2, e, cos, sin, positions);
  at::Tensor want = before.clone();
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t h = 1; h < 3; ++h) {
      const at::Tensor a = before[t].narrow(0, h * e, e / 2), b = before[t].narrow(0, h * e + e / 2, e / 2);
      want[t].narrow(0, h * e, e / 2).copy_(a * cos[positions[t]] - b * sin[positions[t]]);
      want[t].narrow(0, h * e + e / 2, e / 2).copy_(b * cos[positions[t]] + a * sin[positions[t]]);
    }
  }
  ExpectNear(x, want);
}

TEST_P(KernelsTest, AddProjectedRowsTouchesOnlyItsRows) {
  at::Tensor x = at::randn({6, 19}).to(type());
  const at::Tensor write = at::randn({6, 19}).to(type());
  const at::Tensor basis = std::get<0>(at::linalg_qr(at::randn({19, 2}))).t().contiguous();
  at::Tensor want = x.to(at::kDouble).clone();
  const at::Tensor w = write.to(at::kDouble).narrow(0, 2, 3), b = basis.to(at::kDouble);
  want.narrow(0, 2, 3).add_(w - at::mm(at::mm(w, b.t()), b));
  AddProjectedRows(x, write, 2, 5, basis);
  ExpectNear(x, want);
}

TEST_P(KernelsTest, AttentionEqualsTheFormulaWithParentAndGroups) {
  const int64_t e = 8, heads = 6, kv_heads = 2;
  AttentionShape shape;
  shape.num_heads = heads;
  shape.num_kv_heads = kv_heads;
  shape.head_dim = e;
  shape.scale = 0.35;
  shape.kv_head_of = {0, 0, 0, 0, 1, 1};  // Uneven, as on a rank that holds part of a group.
  const at::Tensor q = at::randn({9, heads * e}).to(type());
  const at::Tensor k = at::randn({9, kv_heads * e}).to(type());
  const at::Tensor v = at::randn({9, kv_heads * e}).to(type());
  // Tokens 0..3 are a prefix, 4..6 and 7..8 continue it.
  std::vector<AttentionRow> rows(3);
  constexpr KeySource kHere = KeySource::kBatch;
  rows[0] = {0, 4, {{kHere, 0, 4}}, 1};
  rows[1] = {4, 3, {{kHere, 0, 4}, {kHere, 4, 3}}, 2};
  rows[2] = {7, 2, {{kHere, 0, 4}, {kHere, 7, 2}}, 2};
  struct Variant {
    double softcap;
    int64_t window;
  };
  for (const Variant variant : {Variant{0, 0}, Variant{0, 3}, Variant{1.5, 0}, Variant{1.5, 2}}) {
    shape.logit_softcap = variant.softcap;
    shape.window = variant.window;
    at::Tensor want = at::zeros({9, heads * e}, at::kDouble);
    const std::vector<std::vector<int64_t>> keys = {{0, 1, 2, 3}, {0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 3, 7, 8}};
    for (size_t r = 0; r < rows.size(); ++r) {
      const at::Tensor index = at::tensor(keys[r], at::kLong);
      for (int64_t i = 0; i < rows[r].num_queries; ++i) {
        const int64_t t = rows[r].begin + i;
        const int64_t visible = static_cast<int64_t>(keys[r].size()) - rows[r].num_queries + 1 + i;
        for (int64_t h = 0; h < heads; ++h) {
          const int64_t g = shape.kv_head_of[h];
          const int64_t first = variant.window > 0 ? std::max<int64_t>(visible - variant.window, 0) : 0;
          const at::Tensor seen = index.narrow(0, first, visible - first);
          const at::Tensor kk = k.to(at::kDouble).index_select(0, seen).narrow(1, g * e, e);
          const at::Tensor vv = v.to(at::kDouble).index_select(0, seen).narrow(1, g * e, e);
          at::Tensor scores = at::mv(kk, q.to(at::kDouble)[t].narrow(0, h * e, e)) * shape.scale;
          if (variant.softcap > 0) scores = at::tanh(scores / variant.softcap) * variant.softcap;
          const at::Tensor p = at::softmax(scores, 0);
          want[t].narrow(0, h * e, e).copy_(at::mv(vv.t(), p));
        }
      }
    }
    ExpectNear(Attend(shape, q, rows, {KeyValues{k, v}, {}, {}}), want);
  }
}

TEST(LinearTest, EveryPathGivesTheProduct) {
  at::manual_seed(3);
  const at::Tensor w = at::randn({33, 20}), b = at::randn({33}), x = at::randn({7, 20});
  const at::Tensor want = at::linear(x, w, b);
  for (const GemmPath path : {GemmPath::kPlain, GemmPath::kPacked}) {
    EXPECT_LT(at::amax(at::abs(Linear(w, b, at::kFloat, path).Forward(x) - want)).item<float>(), 1e-4) << GemmPathName(path);
  }
  for (const GemmPath path : {GemmPath::kPlain, GemmPath::kWidened, GemmPath::kWidenedPacked}) {
    const at::Tensor y = Linear(w, b, at::kBFloat16, path).Forward(x.to(at::kBFloat16));
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_LT(at::amax(at::abs(y.to(at::kFloat) - want)).item<float>(), 0.3) << GemmPathName(path);
  }
  EXPECT_FALSE(GemmPathFromName("fastest").has_value());
  EXPECT_TRUE(GemmPathFromName(GemmPathName(ChooseGemmPath(at::kFloat))).has_value());
}

}  // namespace
}  // namespace bearing::model
