#include "worker/model/rope.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

namespace bearing::model {

std::vector<double> RopeFrequencies(const sharding::RopeSpec& spec, int64_t head_dim) {
  std::vector<double> frequencies(head_dim / 2);
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    double f = std::pow(spec.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (spec.scaling == sharding::RopeScaling::kLinear) f /= spec.factor;
    if (spec.scaling == sharding::RopeScaling::kLlama3) {
      // Long wavelengths are stretched by `factor`, short ones kept, those between blended.
      const double context = static_cast<double>(spec.original_max_positions);
      const double wavelength = 2.0 * std::numbers::pi / f;
      if (wavelength > context / spec.low_freq_factor) {
        f /= spec.factor;
      } else if (wavelength >= context / spec.high_freq_factor) {
        const double keep = (context / wavelength - spec.low_freq_factor) / (spec.high_freq_factor - spec.low_freq_factor);
        f = (1.0 - keep) * f / spec.factor + keep * f;
      }
    }
    frequencies[i] = f;
  }
  return frequencies;
}

RopeTable MakeRopeTable(const sharding::RopeSpec& spec, int64_t head_dim, int64_t positions) {
  const std::vector<double> frequencies = RopeFrequencies(spec, head_dim);
  const int64_t half = head_dim / 2;
  RopeTable table{at::empty({positions, half}, at::kFloat), at::empty({positions, half}, at::kFloat)};
  float* cos = table.cos.data_ptr<float>();
  float* sin = table.sin.data_ptr<float>();
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * frequencies[i];
      cos[p * half + i] = static_cast<float>(std::cos(angle));
      sin[p * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

}  // namespace bearing::model
