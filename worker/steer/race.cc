// The race of sampling.h, in host memory and with operations of ATen.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "sharding/multiversion.h"
#include "worker/steer/philox.h"
#include "worker/steer/sampling.h"

namespace bearing::steer {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr int64_t kBlock = 128;  // Pairs of tokens whose bits are made at once; the compiler vectorizes the loop over them.
constexpr double kHigh = 0x1p-32, kLow = 0x1p-64, kHalf = 0x1p-65;

// Two tokens share a counter, 64 bits each. Uniform in (0, 1), from two words.
double Uniform(uint32_t high, uint32_t low) { return high * kHigh + (low * kLow + kHalf); }

// What a row's numbers come from; word 0 of the counter is the pair of tokens.
struct Stream {
  uint32_t step, prompt_low, prompt_high, seed_low, seed_high;
};

Stream StreamOf(const Sampling& sampling, int64_t prompt, int64_t step) {
  const auto p = static_cast<uint64_t>(prompt);
  return {static_cast<uint32_t>(step), static_cast<uint32_t>(p), static_cast<uint32_t>(p >> 32),
          static_cast<uint32_t>(sampling.seed), static_cast<uint32_t>(sampling.seed >> 32)};
}

BEARING_MULTIVERSION void FillBlock(int64_t first_pair, const Stream& stream, uint32_t* w0, uint32_t* w1, uint32_t* w2,
                                    uint32_t* w3) {
  for (int64_t i = 0; i < kBlock; ++i) {
    uint32_t c0 = static_cast<uint32_t>(first_pair + i), c1 = stream.step, c2 = stream.prompt_low, c3 = stream.prompt_high;
    Philox(c0, c1, c2, c3, stream.seed_low, stream.seed_high);
    w0[i] = c0;
    w1[i] = c1;
    w2[i] = c2;
    w3[i] = c3;
  }
}

// One row: tokens `begin` to `begin` + n.
void RaceRow(const float* weights, int64_t begin, int64_t n, const NucleusEnd* end, const Stream& stream, double* winner) {
  uint32_t w0[kBlock], w1[kBlock], w2[kBlock], w3[kBlock];
  double best = kNever;
  int64_t best_id = -1;
  const auto enter = [&](int64_t id, uint32_t high, uint32_t low) {
    const double weight = weights[id - begin];
    const double uniform = Uniform(high, low);
    // -log(1 - u) is at least u: most tokens are out without a logarithm. Zero weights never ring.
    if (!(uniform < best * weight)) return;
    if (end != nullptr && (weight < end->weight || (weight == end->weight && id > end->id))) return;
    const double time = -std::log1p(-uniform) / weight;
    if (time < best) {
      best = time;
      best_id = id;
    }
  };
  for (int64_t pair = begin / 2; 2 * pair < begin + n; pair += kBlock) {
    FillBlock(pair, stream, w0, w1, w2, w3);
    const int64_t last = std::min(kBlock, (begin + n + 1) / 2 - pair);
    for (int64_t i = 0; i < last; ++i) {
      const int64_t id = 2 * (pair + i);
      if (id >= begin) enter(id, w0[i], w1[i]);
      if (id + 1 >= begin && id + 1 < begin + n) enter(id + 1, w2[i], w3[i]);
    }
  }
  winner[0] = best;
  winner[1] = static_cast<double>(best_id);
}

at::Tensor HostRace(const at::Tensor& weights_NV, int64_t vocab_begin, absl::Span<const NucleusEnd> ends,
                    const Sampling& sampling, absl::Span<const int64_t> prompts, int64_t step) {
  const at::Tensor weights = weights_NV.contiguous();
  const int64_t rows = weights.size(0), columns = weights.size(1);
  at::Tensor winners = at::empty({rows, 2}, at::kDouble);
  const float* in = weights.const_data_ptr<float>();
  auto* out = winners.data_ptr<double>();
  at::parallel_for(0, rows, 1, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      RaceRow(in + r * columns, vocab_begin, columns, ends.empty() ? nullptr : &ends[r], StreamOf(sampling, prompts[r], step),
              out + 2 * r);
    }
  });
  return winners;
}

// High and low word of the product of 32-bit numbers in int64.
std::pair<at::Tensor, at::Tensor> Multiply(const at::Tensor& a, uint32_t multiplier) {
  // The product may fill all 64 bits; a half of the multiplier at a time stays below 2^48 + 2^32.
  const int64_t low = multiplier & 0xFFFF, high = multiplier >> 16;
  const at::Tensor of_low = a * low;
  const at::Tensor of_high = a * high + at::bitwise_right_shift(of_low, 16);
  return {at::bitwise_right_shift(of_high, 16),
          at::bitwise_or(at::bitwise_left_shift(at::bitwise_and(of_high, 0xFFFF), 16), at::bitwise_and(of_low, 0xFFFF))};
}

at::Tensor AtenRace(const at::Tensor& weights_NV, int64_t vocab_begin, absl::Span<const NucleusEnd> ends,
                    const Sampling& sampling, absl::Span<const int64_t> prompts, int64_t step) {
  const auto options = at::device(weights_NV.device()).dtype(at::kLong);
  const int64_t rows = weights_NV.size(0), columns = weights_NV.size(1);
  const int64_t first_pair = vocab_begin / 2, pairs = (vocab_begin + columns + 1) / 2 - first_pair;
  std::vector<int64_t> low(rows), high(rows);
  for (int64_t r = 0; r < rows; ++r) {
    const Stream stream = StreamOf(sampling, prompts[r], step);
    low[r] = stream.prompt_low;
    high[r] = stream.prompt_high;
  }
  const auto column = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(weights_NV.device()).unsqueeze(1).expand({rows, pairs});
  };
  const Stream stream = StreamOf(sampling, 0, step);
  at::Tensor c0 = at::arange(first_pair, first_pair + pairs, options).unsqueeze(0).expand({rows, pairs});
  at::Tensor c1 = at::full({rows, pairs}, static_cast<int64_t>(stream.step), options);
  at::Tensor c2 = column(low), c3 = column(high);
  uint32_t k0 = stream.seed_low, k1 = stream.seed_high;
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const auto [high0, low0] = Multiply(c0, kPhiloxMultipliers[0]);
    const auto [high1, low1] = Multiply(c2, kPhiloxMultipliers[1]);
    c0 = at::bitwise_xor(at::bitwise_xor(high1, c1), static_cast<int64_t>(k0));
    c2 = at::bitwise_xor(at::bitwise_xor(high0, c3), static_cast<int64_t>(k1));
    c1 = low1;
    c3 = low0;
    k0 += kPhiloxKeySteps[0];
    k1 += kPhiloxKeySteps[1];
  }
  const auto uniform = [](const at::Tensor& h, const at::Tensor& l) {
    return h.to(at::kDouble) * kHigh + (l.to(at::kDouble) * kLow + kHalf);
  };
  const at::Tensor both = at::stack({uniform(c0, c1), uniform(c2, c3)}, 2).reshape({rows, 2 * pairs});
  const at::Tensor uniforms = both.narrow(1, vocab_begin - 2 * first_pair, columns);
  const at::Tensor weights = weights_NV.to(at::kDouble);
  at::Tensor times = at::log1p(uniforms.neg()).neg().div(weights);
  at::Tensor out = weights.eq(0);
  if (!ends.empty()) {
    std::vector<double> weight;
    std::vector<int64_t> last;
    for (const NucleusEnd& end : ends) {
      weight.push_back(end.weight);
      last.push_back(end.id);
    }
    const at::Tensor w = at::tensor(weight, at::kDouble).to(weights.device()).unsqueeze(1);
    const at::Tensor id = at::tensor(last, at::kLong).to(weights.device()).unsqueeze(1);
    const at::Tensor ids = at::arange(vocab_begin, vocab_begin + columns, options).unsqueeze(0);
    out = at::logical_or(out, at::logical_or(weights.lt(w), at::logical_and(weights.eq(w), ids.gt(id))));
  }
  times = times.masked_fill(out, kNever);
  const auto [time, index] = at::min(times, 1);
  const at::Tensor id = at::where(at::isinf(time), at::full_like(index, -1), index + vocab_begin);
  return at::stack({time, id.to(at::kDouble)}, 1).cpu();
}

}  // namespace

at::Tensor Race(RaceKind kind, const at::Tensor& weights_NV, int64_t vocab_begin, absl::Span<const NucleusEnd> ends,
                const Sampling& sampling, absl::Span<const int64_t> prompts, int64_t step) {
  return kind == RaceKind::kHost ? HostRace(weights_NV, vocab_begin, ends, sampling, prompts, step)
                                 : AtenRace(weights_NV, vocab_begin, ends, sampling, prompts, step);
}

}  // namespace bearing::steer
