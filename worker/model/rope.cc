#include "worker/model/rope.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace bearing::model {
namespace {

using sharding::RopeScaling;
using sharding::RopeSpec;

// Long wavelengths are stretched by `factor`, short ones kept, those between blended.
double Llama3Frequency(const RopeSpec& spec, double f) {
  const double context = static_cast<double>(spec.original_max_positions);
  const double wavelength = 2.0 * std::numbers::pi / f;
  if (wavelength > context / spec.low_freq_factor) return f / spec.factor;
  if (wavelength < context / spec.high_freq_factor) return f;
  const double keep = (context / wavelength - spec.low_freq_factor) / (spec.high_freq_factor - spec.low_freq_factor);
  return (1.0 - keep) * f / spec.factor + keep * f;
}

// Index of the pair that turns `rotations` times within the original context.
double YarnDimension(const RopeSpec& spec, double rotations) {
  const double context = static_cast<double>(spec.original_max_positions);
  return static_cast<double>(spec.rotary_dim) * std::log(context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(spec.theta));
}

// Share of pair i that keeps its frequency; the rest is stretched.
double YarnKeep(const RopeSpec& spec, int64_t i) {
  double low = YarnDimension(spec, spec.beta_fast);
  double high = YarnDimension(spec, spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(spec.rotary_dim - 1));
  if (low == high) high += 0.001;
  return 1.0 - std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
}

void FillRows(const RopeSpec& spec, bool is_long, int64_t positions, float* cos, float* sin) {
  const std::vector<double> frequencies = RopeFrequencies(spec, is_long);
  const auto half = static_cast<int64_t>(frequencies.size());
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * frequencies[i];
      cos[p * half + i] = static_cast<float>(std::cos(angle) * spec.attention_factor);
      sin[p * half + i] = static_cast<float>(std::sin(angle) * spec.attention_factor);
    }
  }
}

}  // namespace

std::vector<double> RopeFrequencies(const RopeSpec& spec, bool is_long) {
  std::vector<double> frequencies(spec.rotary_dim / 2);
  for (int64_t i = 0; i < spec.rotary_dim / 2; ++i) {
    double f = std::pow(spec.theta, -2.0 * static_cast<double>(i) / static_cast<double>(spec.rotary_dim));
    switch (spec.scaling) {
      case RopeScaling::kNone:
      case RopeScaling::kDynamic:
        break;
      case RopeScaling::kLinear:
        f /= spec.factor;
        break;
      case RopeScaling::kLlama3:
        f = Llama3Frequency(spec, f);
        break;
      case RopeScaling::kYarn: {
        const double keep = YarnKeep(spec, i);
        f = f / spec.factor * (1.0 - keep) + f * keep;
        break;
      }
      case RopeScaling::kLongRope:
        f /= is_long ? spec.long_factor[i] : spec.short_factor[i];
        break;
    }
    frequencies[i] = f;
  }
  return frequencies;
}

RopeTable MakeRopeTable(const RopeSpec& spec, int64_t positions) {
  const int64_t half = spec.rotary_dim / 2;
  const int64_t kinds = spec.scaling == RopeScaling::kLongRope ? 2 : 1;
  RopeTable table{at::empty({kinds * positions, half}, at::kFloat), at::empty({kinds * positions, half}, at::kFloat), positions};
  for (int64_t kind = 0; kind < kinds; ++kind) {
    const int64_t offset = kind * positions * half;
    FillRows(spec, kind == 1, positions, table.cos.data_ptr<float>() + offset, table.sin.data_ptr<float>() + offset);
  }
  return table;
}

}  // namespace bearing::model
