#include "worker/model/mixture.h"

#include <ATen/ATen.h>

#include <cstdint>

namespace bearing::model {
namespace {

at::Tensor Forward(const Ops& ops, const GatedMlp& mlp, sharding::Activation activation, const at::Tensor& x) {
  return mlp.down.Forward(ops.GatedActivation(mlp.gate_up.Forward(x), activation)).contiguous();
}

}  // namespace

at::Tensor Mixture(const Ops& ops, const MixtureWeights& weights, const sharding::MoeSpec& spec,
                   sharding::Activation activation, const at::Tensor& x_TD) {
  at::Tensor sum = at::zeros(x_TD.sizes(), x_TD.options().dtype(at::kFloat));
  if (spec.shared_size > 0) {
    const at::Tensor share = at::sigmoid(weights.shared_router.ForwardFloat(x_TD));  // [T, 1]
    sum.add_(Forward(ops, weights.shared, activation, x_TD).to(at::kFloat).mul_(share));
  }
  const at::Tensor probabilities = at::softmax(weights.router.ForwardFloat(x_TD), -1);
  auto [shares, chosen] = at::topk(probabilities, spec.top_k, -1);
  if (spec.renormalize) shares = shares / shares.sum(-1, /*keepdim=*/true);
  const auto expert = [&](int64_t e, const at::Tensor& x) { return Forward(ops, weights.experts[e], activation, x); };
  ops.AddExperts(x_TD, chosen, shares, spec.num_experts, expert, sum);
  return sum.to(x_TD.scalar_type());
}

}  // namespace bearing::model
