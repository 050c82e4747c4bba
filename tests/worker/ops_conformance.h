// What every implementation of worker/model/ops.h must give, on any device: formulas in fp64 on the host.
#ifndef BEARING_TESTS_WORKER_OPS_CONFORMANCE_H_
#define BEARING_TESTS_WORKER_OPS_CONFORMANCE_H_

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <ostream>
#include <vector>

#include "tests/worker/need_device.h"
#include "worker/comm/cuda_backend.h"
#include "worker/model/ops.h"

namespace bearing::model::testing {

struct OpsCase {
  const char* name;
  const Ops* ops;
  at::ScalarType type;
  at::Device device;
};
inline std::ostream& operator<<(std::ostream& out, const OpsCase& c) {
  return out << c.name << " " << c10::toString(c.type) << " " << c.device.str();
}

class OpsTest : public ::testing::TestWithParam<OpsCase> {
 protected:
  void SetUp() override {
    if (GetParam().device.is_cuda()) {
      SKIP_WITHOUT_DEVICE();
      const absl::Status loaded = comm::LoadCuda();  // Before ATen is asked for a device.
      ASSERT_TRUE(loaded.ok()) << loaded;
    }
    at::manual_seed(7);
  }

  const Ops& ops() const { return *GetParam().ops; }
  // fp32: the order of sums. bf16: a rounding or two of 2^-9 each, where the host's formula has none.
  double tolerance() const { return GetParam().type == at::kFloat ? 3e-6 : 1e-2; }

  // Values of the type, on the device.
  at::Tensor Random(at::IntArrayRef shape, double scale = 1) const { return Typed(at::randn(shape) * scale); }
  at::Tensor Typed(const at::Tensor& x) const { return x.to(GetParam().type).to(GetParam().device); }
  at::Tensor OnDevice(const at::Tensor& x) const { return x.to(GetParam().device); }
  // The same values in fp64 on the host.
  static at::Tensor Wide(const at::Tensor& x) { return x.cpu().to(at::kDouble); }

  void ExpectNear(const at::Tensor& got, const at::Tensor& want) const {
    ASSERT_EQ(got.sizes(), want.sizes());
    const double scale = at::amax(at::abs(want)).item<double>();
    EXPECT_LE(at::amax(at::abs(Wide(got) - want)).item<double>(), tolerance() * scale);
  }

  // A view of `tokens` tokens at positions 0, 1, ... and what else a test sets before it is prepared.
  static PackedBatch Batch(int64_t tokens) {
    PackedBatch batch;
    batch.token_ids.assign(tokens, 0);
    return batch;
  }
  static BatchView View(int64_t tokens) {
    BatchView view;
    for (int64_t t = 0; t < tokens; ++t) view.positions.push_back(static_cast<int32_t>(t));
    view.is_long.assign(tokens, false);
    return view;
  }
  void Prepare(const PackedBatch& batch, BatchView& view) const { ops().Prepare(batch, GetParam().device, view); }

  // Attention by its formula: one query at a time.
  static at::Tensor FormulaOf(const AttentionShape& shape, const at::Tensor& q, const std::vector<AttentionRow>& rows,
                              const std::array<KeyValues, 2>& sources) {
    std::vector<at::Tensor> all;
    for (const AttentionRow& row : rows) {
      std::vector<at::Tensor> k, v;
      for (int s = 0; s < row.num_spans; ++s) {
        const KeyValues& source = sources[static_cast<size_t>(row.spans[s].source)];
        k.push_back(Wide(source.keys.narrow(0, row.spans[s].begin, row.spans[s].count)));
        v.push_back(Wide(source.values.narrow(0, row.spans[s].begin, row.spans[s].count)));
      }
      const at::Tensor keys = at::cat(k, 0), values = at::cat(v, 0);
      for (int64_t i = 0; i < row.num_queries; ++i) {
        const int64_t end = keys.size(0) - row.num_queries + 1 + i;
        const int64_t first = shape.window > 0 ? std::max<int64_t>(end - shape.window, 0) : 0;
        std::vector<at::Tensor> heads;
        for (int64_t h = 0; h < shape.num_heads; ++h) {
          const auto head = [&](const at::Tensor& x) {
            return x.narrow(0, first, end - first).narrow(1, shape.kv_head_of[h] * shape.head_dim, shape.head_dim);
          };
          at::Tensor scores = at::mv(head(keys), Wide(q[row.begin + i].narrow(0, h * shape.head_dim, shape.head_dim)));
          scores = scores * shape.scale;
          if (shape.logit_softcap > 0) scores = at::tanh(scores / shape.logit_softcap) * shape.logit_softcap;
          heads.push_back(at::mv(head(values).t(), at::softmax(scores, 0)));
        }
        all.push_back(at::cat(heads, 0));
      }
    }
    return at::stack(all, 0);
  }
};

TEST_P(OpsTest, EmbedTakesTheRowsOfThisRank) {
  const at::Tensor table = Random({4, 5});
  PackedBatch batch = Batch(5);
  batch.token_ids = {10, 13, 9, 14, 12};
  BatchView view = View(5);
  Prepare(batch, view);
  at::Tensor want = at::zeros({5, 5}, at::kDouble);
  want[0].copy_(table[0]);
  want[1].copy_(table[3]);
  want[4].copy_(table[2]);
  EXPECT_TRUE(at::equal(Wide(ops().Embed(table, {10, 14}, batch, view)), want));
}

TEST_P(OpsTest, TakeReadPicksRows) {
  const at::Tensor x = Random({5, 3});
  BatchView view = View(5);
  view.read = {1, 4};
  Prepare(Batch(5), view);
  EXPECT_TRUE(at::equal(ops().TakeRead(x, view), at::stack({x[1], x[4]})));
}

TEST_P(OpsTest, RmsNorm) {
  const at::Tensor x = Random({5, 37}), w = Random({37});
  const at::Tensor wide = Wide(x);
  const at::Tensor want = wide / at::sqrt(at::mean(wide * wide, {1}, true) + 1e-5) * Wide(w);
  for (const bool cast_first : {true, false}) ExpectNear(ops().RmsNorm(x, {w.to(at::kFloat), cast_first}, 1e-5), want);
}

TEST_P(OpsTest, RmsNormHeadsNormalizesEachHeadAndLeavesOtherColumns) {
  for (const bool cast_first : {true, false}) {
    at::Tensor x = Random({5, 4 * 6});
    const at::Tensor w = Random({6});
    at::Tensor want = Wide(x).clone();
    const at::Tensor heads = want.narrow(1, 6, 12).reshape({5, 2, 6});
    want.narrow(1, 6, 12).copy_((heads / at::sqrt(at::mean(heads * heads, {2}, true) + 1e-6) * Wide(w)).reshape({5, 12}));
    ops().RmsNormHeads(x, 6, 2, 6, {w.to(at::kFloat), cast_first}, 1e-6);
    ExpectNear(x, want);
  }
}

TEST_P(OpsTest, SiluMultiply) {
  const at::Tensor gate_up = Random({6, 2 * 53}, 8);
  const at::Tensor gate = Wide(gate_up).narrow(1, 0, 53);
  ExpectNear(ops().GatedActivation(gate_up, sharding::Activation::kSilu),
             gate * at::sigmoid(gate) * Wide(gate_up).narrow(1, 53, 53));
}

TEST_P(OpsTest, GeluTanhMultiply) {
  const at::Tensor gate_up = Random({6, 2 * 53}, 4);
  const at::Tensor gate = Wide(gate_up).narrow(1, 0, 53);
  const at::Tensor tanh = at::tanh(std::sqrt(2.0 / std::numbers::pi) * (gate + 0.044715 * gate * gate * gate));
  ExpectNear(ops().GatedActivation(gate_up, sharding::Activation::kGeluTanh),
             0.5 * gate * (1.0 + tanh) * Wide(gate_up).narrow(1, 53, 53));
}

TEST_P(OpsTest, SiluOfLargeValuesIsFinite) {
  at::Tensor gate_up = Typed(at::full({1, 4}, 1.0));
  gate_up[0][0] = -1000.0;
  gate_up[0][1] = 1000.0;
  const at::Tensor y = Wide(ops().GatedActivation(gate_up, sharding::Activation::kSilu));
  EXPECT_NEAR(y[0][0].item<double>(), 0.0, 1e-30);
  EXPECT_NEAR(y[0][1].item<double>(), 1000.0, 1.0);
}

TEST_P(OpsTest, RopeTurnsPairsAndLeavesOtherColumns) {
  const int64_t e = 10, rotary = 8, half = rotary / 2;
  // Rows of long sequences stand behind the 10 of the others.
  for (const bool has_long : {false, true}) {
    at::Tensor x = Random({3, 4 * e});
    at::Tensor want = Wide(x).clone();
    const at::Tensor angle = at::randn({has_long ? 20 : 10, half});
    const at::Tensor cos = at::cos(angle), sin = at::sin(angle);
    RopeTable table{OnDevice(cos), OnDevice(sin), 10};
    BatchView view = View(3);
    view.positions = {0, 7, 3};
    view.is_long = {false, true, false};
    Prepare(Batch(3), view);
    ops().ApplyRope(x, 2, e, table, view);
    for (int64_t t = 0; t < 3; ++t) {
      const int64_t row = view.positions[t] + (has_long && view.is_long[t] ? 10 : 0);
      for (int64_t h = 0; h < 2; ++h) {
        const at::Tensor a = want[t].narrow(0, h * e, half).clone(), b = want[t].narrow(0, h * e + half, half).clone();
        want[t].narrow(0, h * e, half).copy_(a * cos[row] - b * sin[row]);
        want[t].narrow(0, h * e + half, half).copy_(b * cos[row] + a * sin[row]);
      }
    }
    ExpectNear(x, want);
  }
}

TEST_P(OpsTest, StoreDecodedFillsSlots) {
  const at::Tensor columns = Random({3, 10});
  at::Tensor stored = Random({6, 4});
  at::Tensor want = Wide(stored).clone();
  BatchView view = View(3);
  view.decoded_tokens = {0, 1, 2};
  view.decoded_slots = {5, 2, 3};
  Prepare(Batch(3), view);
  const at::Tensor kv = columns.narrow(1, 3, 4);
  ops().StoreDecoded(kv, view, stored);
  for (int64_t i = 0; i < 3; ++i) want[view.decoded_slots[i]].copy_(kv[i]);
  EXPECT_TRUE(at::equal(Wide(stored), want));
}

TEST_P(OpsTest, AddWriteTakesOutWhatTheRowsGroupAblates) {
  const auto basis_of = [](int64_t k) { return std::get<0>(at::linalg_qr(at::randn({19, k}))).t().contiguous(); };
  const at::Tensor two = basis_of(2), one = basis_of(1);
  Intervention none, pair, single;
  pair.ablate_basis = two;
  single.ablate_basis = one;
  for (const bool ablates : {true, false}) {
    BatchView view = View(6);
    view.read = {1, 3, 5};
    if (ablates) {
      view.groups = {{&none, 0, 2}, {&pair, 2, 4}, {&single, 4, 6}};
      view.read_groups = {{&none, 0, 1}, {&pair, 1, 2}, {&single, 2, 3}};
    }
    Prepare(Batch(6), view);
    for (const Tokens tokens : {Tokens::kAll, Tokens::kRead}) {
      const int64_t n = tokens == Tokens::kAll ? 2 : 1;  // Rows a group.
      at::Tensor x = Random({3 * n, 19});
      const at::Tensor write = Random({3 * n, 19});
      at::Tensor want = Wide(x) + Wide(write);
      for (int64_t g = 1; ablates && g < 3; ++g) {
        const at::Tensor basis = (g == 1 ? two : one).to(at::kDouble);
        want.narrow(0, g * n, n).sub_(at::mm(at::mm(Wide(write).narrow(0, g * n, n), basis.t()), basis));
      }
      ops().AddWrite(x, write, view, tokens, WriteSite());
      ExpectNear(x, want);
    }
  }
}

TEST_P(OpsTest, AddWriteTakesOutTheShareOfTheSite) {
  constexpr int64_t kLayers = 3;
  const auto basis_of = [](int64_t k) { return std::get<0>(at::linalg_qr(at::randn({19, k}))).t().contiguous(); };
  Intervention none, whole, strong, by_layer;
  whole.ablate_basis = basis_of(1);
  strong.ablate_basis = basis_of(2);
  strong.strengths = at::rand({1 + 2 * kLayers}) * 2 - 0.5;
  strong.strengths[3] = 0;  // Attention of layer 1.
  by_layer.ablate_basis = at::stack({basis_of(2), basis_of(2), basis_of(2)}, 0);
  by_layer.strengths = at::rand({1 + 2 * kLayers});
  // What each group alone, and all of them together, must lose.
  for (const std::vector<const Intervention*>& groups :
       {std::vector<const Intervention*>{&none, &whole, &strong, &by_layer}, {&none, &strong}, {&whole, &by_layer}}) {
    const auto count = static_cast<int64_t>(groups.size());
    BatchView view = View(2 * count);
    for (int64_t g = 0; g < count; ++g) {
      view.groups.push_back({groups[g], 2 * g, 2 * g + 2});
      view.read_groups.push_back({groups[g], g, g + 1});
      view.read.push_back(2 * g + 1);
    }
    Prepare(Batch(2 * count), view);
    std::vector<WriteSite> sites = {WriteSite()};
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      sites.push_back({Writer::kAttention, layer});
      sites.push_back({Writer::kMlp, layer});
    }
    for (size_t s = 0; s < sites.size(); ++s) {
      ASSERT_EQ(sites[s].index(), static_cast<int64_t>(s));
      for (const Tokens tokens : {Tokens::kAll, Tokens::kRead}) {
        const int64_t n = tokens == Tokens::kAll ? 2 : 1;
        at::Tensor x = Random({count * n, 19});
        const at::Tensor write = Random({count * n, 19});
        at::Tensor want = Wide(x) + Wide(write);
        for (int64_t g = 0; g < count; ++g) {
          const Intervention& what = *groups[g];
          if (!what.ablate_basis.defined()) continue;
          const at::Tensor basis =
              (what.ablate_basis.dim() == 3 ? what.ablate_basis[sites[s].layer] : what.ablate_basis).to(at::kDouble);
          const double strength = what.strengths.defined() ? what.strengths[static_cast<int64_t>(s)].item<double>() : 1.0;
          const at::Tensor along = at::mm(at::mm(Wide(write).narrow(0, g * n, n), basis.t()), basis);
          want.narrow(0, g * n, n).sub_(along * strength);
        }
        ops().AddWrite(x, write, view, tokens, sites[s]);
        ExpectNear(x, want);
      }
    }
  }
}

TEST_P(OpsTest, AddVectorsAddsAtItsLayerToItsRows) {
  Intervention first, second;
  first.add = at::randn({7});
  first.add_layer = 2;
  second.add = at::randn({7});
  second.add_layer = 3;
  BatchView view = View(5);
  view.groups = {{&first, 0, 2}, {&second, 2, 5}};
  Prepare(Batch(5), view);
  at::Tensor x = Random({5, 7});
  at::Tensor want = Wide(x).clone();
  ops().AddVectors(x, 1, view);
  ops().AddVectors(x, 2, view);
  want.narrow(0, 0, 2).add_(first.add);
  ExpectNear(x, want);
}

TEST_P(OpsTest, AddExpertsSumsWhatEachTokensExpertsGive) {
  const int64_t tokens = 9, d = 5, experts = 4;
  const at::Tensor x = Random({tokens, d}), scale = Random({experts});
  const at::Tensor scores = at::rand({tokens, experts});
  scores.select(1, 2).zero_();  // An expert without tokens.
  const auto [weights, chosen] = at::topk(scores, 2, -1);
  at::Tensor sum = OnDevice(at::randn({tokens, d}));
  at::Tensor want = Wide(sum).clone();
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < 2; ++k) {
      const int64_t e = chosen[t][k].item<int64_t>();
      want[t].add_(Wide(x)[t] * Wide(scale)[e] * weights[t][k].item<double>());
    }
  }
  std::vector<int64_t> asked;
  ops().AddExperts(
      x, OnDevice(chosen), OnDevice(weights), experts,
      [&](int64_t e, const at::Tensor& part) {
        asked.push_back(e);
        return part * scale[e];
      },
      sum);
  EXPECT_EQ(asked, (std::vector<int64_t>{0, 1, 3}));
  ExpectNear(sum, want);
}

TEST_P(OpsTest, AttentionEqualsTheFormulaWithParentAndGroups) {
  const int64_t e = 8;
  // Tokens 0..3 are a prefix, 4..6 and 7..8 continue it.
  constexpr KeySource kHere = KeySource::kBatch;
  BatchView view = View(9);
  view.rows = {
      {0, 4, {{kHere, 0, 4}}, 1}, {4, 3, {{kHere, 0, 4}, {kHere, 4, 3}}, 2}, {7, 2, {{kHere, 0, 4}, {kHere, 7, 2}}, 2}};
  view.read = {6, 8};
  view.read_rows = {{6, 1, {{kHere, 0, 4}, {kHere, 4, 3}}, 2}, {8, 1, {{kHere, 0, 4}, {kHere, 7, 2}}, 2}};
  Prepare(Batch(9), view);
  struct Variant {
    double softcap;
    int64_t window;
  };
  // Even groups, and uneven ones as on a rank that holds a part of a group.
  for (const std::vector<int64_t>& kv_head_of : {std::vector<int64_t>{0, 0, 0, 1, 1, 1}, {0, 0, 0, 0, 1, 1}}) {
    for (const Variant variant : {Variant{0, 0}, Variant{0, 3}, Variant{1.5, 0}, Variant{1.5, 2}}) {
      const AttentionShape shape{6, 2, e, 0.35, variant.softcap, variant.window, kv_head_of};
      const at::Tensor qkv = Random({9, (6 + 2 * 2) * e});
      const std::array<KeyValues, 2> sources = {KeyValues{qkv.narrow(1, 6 * e, 2 * e), qkv.narrow(1, 8 * e, 2 * e)}, {}};
      ExpectNear(ops().Attend(shape, qkv, view, Tokens::kAll, sources), FormulaOf(shape, qkv, view.rows, sources));
      ExpectNear(ops().Attend(shape, qkv, view, Tokens::kRead, sources), FormulaOf(shape, qkv, view.read_rows, sources));
    }
  }
}

TEST_P(OpsTest, AttentionOfRowsOfManySizes) {
  const int64_t e = 16, heads = 2;
  std::vector<int64_t> lengths = {700, 3, 690, 120, 1, 110};
  BatchView view;
  int64_t tokens = 0;
  for (const int64_t length : lengths) {
    AttentionRow row{tokens, length, {{KeySource::kBatch, tokens, length}}, 1};
    view.rows.push_back(row);
    tokens += length;
  }
  view.positions.assign(tokens, 0);
  view.is_long.assign(tokens, false);
  Prepare(Batch(tokens), view);
  const AttentionShape shape{heads, heads, e, 0.25, 0, 0, {0, 1}};
  const at::Tensor qkv = Random({tokens, 3 * heads * e});
  const std::array<KeyValues, 2> sources = {
      KeyValues{qkv.narrow(1, heads * e, heads * e), qkv.narrow(1, 2 * heads * e, heads * e)}, {}};
  ExpectNear(ops().Attend(shape, qkv, view, Tokens::kAll, sources), FormulaOf(shape, qkv, view.rows, sources));
}

TEST_P(OpsTest, AttentionOfDecodeStepsReadsTheCache) {
  const int64_t e = 8, kv_heads = 2;
  const AttentionShape shape{4, kv_heads, e, 0.3, 0, 0, {0, 0, 1, 1}};
  constexpr KeySource kCache = KeySource::kCache;
  // Prefix 0..2, own tokens 3..4 and 5..7, decoded ones at 8.. and 12...
  BatchView view = View(2);
  view.rows = {{0, 1, {{kCache, 0, 3}, {kCache, 3, 2}, {kCache, 8, 4}}, 3},
               {1, 1, {{kCache, 0, 3}, {kCache, 5, 3}, {kCache, 12, 1}}, 3}};
  Prepare(Batch(2), view);
  const at::Tensor stored = Random({16, 2 * kv_heads * e});
  const at::Tensor q = Random({2, (4 + 2 * kv_heads) * e});
  const std::array<KeyValues, 2> sources = {
      KeyValues{}, KeyValues{stored.narrow(1, 0, kv_heads * e), stored.narrow(1, kv_heads * e, kv_heads * e)}};
  ExpectNear(ops().Attend(shape, q, view, Tokens::kAll, sources), FormulaOf(shape, q, view.rows, sources));
}

}  // namespace bearing::model::testing

#endif  // BEARING_TESTS_WORKER_OPS_CONFORMANCE_H_
