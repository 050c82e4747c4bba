#include "worker/steer/concept_metric.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "sharding/status_macros.h"

namespace bearing::steer {
namespace {

std::vector<double> ToVector(const at::Tensor& values) {
  const at::Tensor d = values.to(at::kDouble).cpu().contiguous();
  return std::vector<double>(d.const_data_ptr<double>(), d.const_data_ptr<double>() + d.numel());
}

absl::StatusOr<at::Tensor> SumOfTokens(const model::Decoder& decoder, const at::Tensor& probabilities_NV,
                                       absl::Span<const int32_t> token_ids) {
  const sharding::Range vocab = decoder.local_vocab();
  at::Tensor p = at::zeros({probabilities_NV.size(0)}, probabilities_NV.options().dtype(at::kDouble));
  for (const int32_t id : token_ids) {
    if (id >= vocab.begin && id < vocab.end) p.add_(probabilities_NV.select(1, id - vocab.begin));
  }
  BEARING_RETURN_IF_ERROR(decoder.comm().AllReduce(p, comm::ReduceOp::kSum));
  return p;
}

}  // namespace

absl::StatusOr<at::Tensor> LocalProbabilities(const model::Decoder& decoder, const at::Tensor& residual_ND) {
  return SoftmaxInPlace(decoder, decoder.LocalLogits(residual_ND));
}

absl::StatusOr<at::Tensor> SoftmaxInPlace(const model::Decoder& decoder, at::Tensor logits) {
  at::Tensor top = at::amax(logits, 1);
  BEARING_RETURN_IF_ERROR(decoder.comm().AllReduce(top, comm::ReduceOp::kMax));
  logits.sub_(top.unsqueeze(1)).exp_();
  at::Tensor sum = at::sum(logits, 1, false, at::kDouble);
  BEARING_RETURN_IF_ERROR(decoder.comm().AllReduce(sum, comm::ReduceOp::kSum));
  logits.div_(sum.to(at::kFloat).unsqueeze(1));
  return logits;
}

absl::StatusOr<std::vector<double>> TokenProbabilities(const model::Decoder& decoder, const at::Tensor& probabilities_NV,
                                                       absl::Span<const int32_t> token_ids) {
  BEARING_ASSIGN_OR_RETURN(const at::Tensor p, SumOfTokens(decoder, probabilities_NV, token_ids));
  return ToVector(p);
}

absl::StatusOr<std::vector<double>> ConceptMetric(const model::Decoder& decoder, const at::Tensor& probabilities_NV,
                                                  absl::Span<const int32_t> token_ids) {
  BEARING_ASSIGN_OR_RETURN(const at::Tensor p, SumOfTokens(decoder, probabilities_NV, token_ids));
  return ToVector(at::log(p + 1e-8) - at::log(1.0 - p + 1e-8));
}

absl::StatusOr<std::vector<double>> RowKl(const model::Decoder& decoder, const at::Tensor& baseline_NV,
                                          const at::Tensor& ablated_NV) {
  const int64_t n = baseline_NV.size(0);
  at::Tensor kl = at::empty({n}, baseline_NV.options().dtype(at::kDouble));
  // On the CPU row by row: the temporaries stay in cache.
  const int64_t step = baseline_NV.is_cpu() ? 1 : n;
  for (int64_t r = 0; r < n; r += step) {
    const at::Tensor a = baseline_NV.narrow(0, r, step);
    const at::Tensor b = ablated_NV.narrow(0, r, step);
    const at::Tensor difference = at::log(a + 1e-6).sub_(at::log(b + 1e-6)).mul_(a);
    kl.narrow(0, r, step).copy_(at::sum(difference, 1, false, at::kDouble));
  }
  BEARING_RETURN_IF_ERROR(decoder.comm().AllReduce(kl, comm::ReduceOp::kSum));
  return ToVector(kl);
}

std::vector<DerivedToken> DeriveConceptTokens(const at::Tensor& positive_mean_V, const at::Tensor& negative_mean_V) {
  const std::vector<double> positive = ToVector(positive_mean_V);
  const std::vector<double> negative = ToVector(negative_mean_V);
  std::vector<DerivedToken> tokens;
  for (size_t v = 0; v < positive.size(); ++v) {
    if (positive[v] - negative[v] >= 0.02 && positive[v] >= 2 * negative[v]) {
      tokens.push_back({static_cast<int32_t>(v), positive[v], negative[v]});
    }
  }
  std::stable_sort(tokens.begin(), tokens.end(), [](const DerivedToken& a, const DerivedToken& b) {
    return a.positive_probability - a.negative_probability > b.positive_probability - b.negative_probability;
  });
  if (tokens.size() > 8) tokens.resize(8);
  return tokens;
}

}  // namespace bearing::steer
