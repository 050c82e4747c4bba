// Sampling against closed forms: known answers of the generator, the nucleus by brute force, and the distribution of tokens.
#include "worker/steer/sampling.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "sharding/status_macros.h"
#include "worker/comm/thread_communicator.h"
#include "worker/steer/philox.h"

namespace bearing::steer {
namespace {

using Words = std::array<uint32_t, 4>;

// The authors' kat_vectors of philox4x32 with 10 rounds.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(Philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Rank r's columns of a row that is cut unevenly.
struct Cut {
  int64_t begin, count;
};
Cut CutOf(int64_t vocab, int ranks, int rank) {
  const int64_t begin = vocab * rank * rank / (ranks * ranks), end = vocab * (rank + 1) * (rank + 1) / (ranks * ranks);
  return {begin, end - begin};
}

// What every rank gets, checked to be the same.
std::vector<int32_t> Sample(const at::Tensor& logits_NV, int ranks, const Sampling& sampling,
                            const std::vector<int64_t>& prompts, int64_t step) {
  std::vector<std::vector<int32_t>> got(ranks);
  const absl::Status status = comm::RunThreadRanks(ranks, [&](comm::Communicator& comm) -> absl::Status {
    const Cut cut = CutOf(logits_NV.size(1), ranks, comm.rank());
    const at::Tensor mine = logits_NV.narrow(1, cut.begin, cut.count).clone();
    BEARING_ASSIGN_OR_RETURN(got[comm.rank()], SampleTokens(comm, cut.begin, mine, sampling, prompts, step));
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  for (const auto& tokens : got) EXPECT_EQ(tokens, got[0]);
  return got[0];
}

std::vector<int64_t> Iota(int64_t n) {
  std::vector<int64_t> values(n);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

TEST(RaceTest, BothKindsPickTheSameTokens) {
  at::manual_seed(1);
  const at::Tensor weights = at::softmax(at::randn({40, 1001}) * 2, 1);
  const std::vector<int64_t> prompts = [] {
    std::vector<int64_t> many = Iota(40);
    many[3] = int64_t{1} << 40;
    return many;
  }();
  const std::vector<NucleusEnd> ends(40, NucleusEnd{0.002, 600});
  for (const uint64_t seed : {uint64_t{0}, uint64_t{0xFEDCBA9876543210}}) {
    for (const int64_t begin : {int64_t{0}, int64_t{7}, int64_t{128255}}) {
      const Sampling sampling{1, 1, seed};
      const at::Tensor host = Race(RaceKind::kHost, weights, begin, {}, sampling, prompts, 5);
      const at::Tensor aten = Race(RaceKind::kAten, weights, begin, {}, sampling, prompts, 5);
      EXPECT_TRUE(at::equal(host.select(1, 1), aten.select(1, 1)));
      EXPECT_TRUE(at::allclose(host, aten, 1e-12));
      const at::Tensor cut = Race(RaceKind::kHost, weights, begin, ends, sampling, prompts, 5);
      EXPECT_TRUE(at::equal(cut.select(1, 1), Race(RaceKind::kAten, weights, begin, ends, sampling, prompts, 5).select(1, 1)));
      EXPECT_FALSE(at::equal(cut, host)) << "the cut cuts nothing";
    }
  }
}

TEST(NucleusTest, IsTheOneOfASortedRow) {
  at::manual_seed(2);
  constexpr int64_t kRows = 30, kVocab = 201;
  at::Tensor weights = at::softmax(at::randn({kRows, kVocab}) * 3, 1);
  weights.narrow(0, 0, 10).copy_(at::round(weights.narrow(0, 0, 10) * 200) / 200);  // Many ties, and zeros.
  weights.select(0, 10).fill_(1.0F);                                                // Nothing but ties.
  for (const double top_p : {1e-6, 0.3, 0.9, 0.999}) {
    for (const int ranks : {1, 2, 3}) {
      for (const int64_t first_k : {1, 5, 64}) {
        const absl::Status status = comm::RunThreadRanks(ranks, [&](comm::Communicator& comm) -> absl::Status {
          const Cut cut = CutOf(kVocab, ranks, comm.rank());
          BEARING_ASSIGN_OR_RETURN(const std::vector<NucleusEnd> ends,
                                   FindNuclei(comm, cut.begin, weights.narrow(1, cut.begin, cut.count), top_p, first_k));
          for (int64_t r = 0; r < kRows; ++r) {
            std::vector<std::pair<double, int64_t>> sorted;
            double total = 0, sum = 0;
            for (int64_t v = 0; v < kVocab; ++v) sorted.push_back({-double{weights[r][v].item<float>()}, v});
            std::sort(sorted.begin(), sorted.end());
            for (const auto& [minus, id] : sorted) total -= minus;
            size_t last = 0;
            while (last < sorted.size() && (sum -= sorted[last].first) < top_p * total) ++last;
            EXPECT_EQ(ends[r].id, sorted[last].second) << "row=" << r << " top_p=" << top_p << " ranks=" << ranks;
            EXPECT_EQ(ends[r].weight, -sorted[last].first);
          }
          return absl::OkStatus();
        });
        ASSERT_TRUE(status.ok()) << status;
      }
    }
  }
}

// Pearson's statistic of counts against probabilities; cells that expect fewer than 5 are joined.
double ChiSquare(const std::map<int32_t, int>& counts, const std::vector<double>& p, int n, int& degrees) {
  double statistic = 0, rest_expected = 0;
  int rest = 0;
  degrees = -1;
  for (size_t v = 0; v < p.size(); ++v) {
    const auto found = counts.find(static_cast<int32_t>(v));
    const int count = found == counts.end() ? 0 : found->second;
    const double expected = p[v] * n;
    if (expected < 5) {
      rest_expected += expected;
      rest += count;
      continue;
    }
    statistic += (count - expected) * (count - expected) / expected;
    ++degrees;
  }
  if (rest_expected > 0) {
    statistic += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
    ++degrees;
  }
  return statistic;
}

TEST(SampleTokensTest, TokensFollowTheDistributionAndNotTheLayout) {
  at::manual_seed(3);
  constexpr int64_t kVocab = 60;
  constexpr int kRows = 20000;
  const at::Tensor row = at::randn({kVocab}) * 2;
  const at::Tensor logits = row.unsqueeze(0).expand({kRows, kVocab}).contiguous();
  const std::vector<int64_t> prompts = Iota(kRows);
  for (const Sampling sampling : {Sampling{1, 1, 42}, Sampling{0.5, 1, 42}, Sampling{1.5, 0.8, 7}, Sampling{1, 0.5, 1}}) {
    std::vector<double> p(kVocab);
    const at::Tensor softmax = at::softmax(row.to(at::kDouble) / sampling.temperature, 0);
    const at::Tensor order = at::argsort(softmax, 0, /*descending=*/true);
    double sum = 0;
    for (int64_t i = 0; i < kVocab && sum < sampling.top_p; ++i) {
      const auto v = order[i].item<int64_t>();
      sum += p[v] = softmax[v].item<double>();
    }
    for (double& value : p) value /= sum;
    const std::vector<int32_t> tokens = Sample(logits, 1, sampling, prompts, 0);
    std::map<int32_t, int> counts;
    for (const int32_t token : tokens) ++counts[token];
    for (const auto& [token, count] : counts) EXPECT_GT(p[token], 0) << "outside the nucleus: " << token;
    int degrees = 0;
    const double statistic = ChiSquare(counts, p, kRows, degrees);
    // Mean `degrees`, variance twice that; four standard deviations, at a seed that does not change.
    EXPECT_LT(statistic, degrees + 4 * std::sqrt(2.0 * degrees)) << "degrees=" << degrees;
    EXPECT_EQ(Sample(logits, 2, sampling, prompts, 0), tokens);
    EXPECT_EQ(Sample(logits, 3, sampling, prompts, 0), tokens);
    EXPECT_NE(Sample(logits, 1, sampling, prompts, 1), tokens) << "the step changes nothing";
    EXPECT_NE(Sample(logits, 1, {sampling.temperature, sampling.top_p, sampling.seed + 1}, prompts, 0), tokens);
  }
}

// A row's token is its own: other rows, their order and their number do not matter.
TEST(SampleTokensTest, RowsDoNotDependOnTheBatch) {
  at::manual_seed(4);
  const at::Tensor logits = at::randn({50, 300});
  const Sampling sampling{1, 0.95, 9};
  const std::vector<int32_t> all = Sample(logits, 2, sampling, Iota(50), 3);
  const std::vector<int64_t> some = {41, 7, 12};
  const std::vector<int32_t> got = Sample(logits.index_select(0, at::tensor(some, at::kLong)), 1, sampling, some, 3);
  EXPECT_THAT(got, ::testing::ElementsAre(all[41], all[7], all[12]));
}

TEST(SampleTokensTest, LogitsThatAreNotFiniteAreAnError) {
  const absl::Status status = comm::RunThreadRanks(2, [&](comm::Communicator& comm) -> absl::Status {
    return SampleTokens(comm, comm.rank() * 8, at::full({1, 8}, NAN), {1, 1, 0}, std::vector<int64_t>{4}, 2).status();
  });
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("not finite: prompt=5 step=3"));
}

}  // namespace
}  // namespace bearing::steer
