#include "worker/model/mixture.h"

#include <ATen/ATen.h>

#include <cstdint>

#include "worker/model/kernels.h"

namespace bearing::model {
namespace {

// Tokens of one expert and their weights, tokens ascending.
struct Assigned {
  std::vector<int64_t> tokens;
  std::vector<float> weights;
};

std::vector<Assigned> Route(const Linear& router, const sharding::MoeSpec& spec, const at::Tensor& x_TD) {
  const at::Tensor probabilities = at::softmax(router.ForwardFloat(x_TD), -1);
  auto [weights, chosen] = at::topk(probabilities, spec.top_k, -1);
  if (spec.renormalize) weights = weights / weights.sum(-1, /*keepdim=*/true);
  weights = weights.contiguous();
  chosen = chosen.contiguous();
  std::vector<Assigned> assigned(spec.num_experts);
  const float* w = weights.const_data_ptr<float>();
  const int64_t* e = chosen.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < chosen.numel(); ++i) {
    assigned[e[i]].tokens.push_back(i / spec.top_k);
    assigned[e[i]].weights.push_back(w[i]);
  }
  return assigned;
}

at::Tensor Forward(const GatedMlp& mlp, sharding::Activation activation, const at::Tensor& x) {
  return mlp.down.Forward(GatedActivation(mlp.gate_up.Forward(x), activation)).contiguous();
}

}  // namespace

at::Tensor Mixture(const MixtureWeights& weights, const sharding::MoeSpec& spec, sharding::Activation activation,
                   const at::Tensor& x_TD) {
  at::Tensor sum = at::zeros(x_TD.sizes(), at::kFloat);
  if (spec.shared_size > 0) {
    const at::Tensor share = at::sigmoid(weights.shared_router.ForwardFloat(x_TD));  // [T, 1]
    sum.add_(Forward(weights.shared, activation, x_TD).to(at::kFloat).mul_(share));
  }
  const std::vector<Assigned> assigned = Route(weights.router, spec, x_TD);
  for (int64_t e = 0; e < spec.num_experts; ++e) {
    const std::vector<int64_t>& tokens = assigned[e].tokens;
    if (tokens.empty()) continue;
    const at::Tensor index =
        at::from_blob(const_cast<int64_t*>(tokens.data()), {static_cast<int64_t>(tokens.size())}, at::kLong);
    ScatterAddRows(sum, Forward(weights.experts[e], activation, x_TD.index_select(0, index)), tokens, assigned[e].weights);
  }
  return sum.to(x_TD.scalar_type());
}

}  // namespace bearing::model
