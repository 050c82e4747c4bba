// A mixture of experts: every rank routes every token, and multiplies with its columns of each expert that has tokens.
#ifndef BEARING_WORKER_MODEL_MIXTURE_H_
#define BEARING_WORKER_MODEL_MIXTURE_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "sharding/model_config.h"
#include "worker/model/linear.h"
#include "worker/model/ops.h"

namespace bearing::model {

struct GatedMlp {
  Linear gate_up;  // [2F, D] of this rank: gate, then up.
  Linear down;     // [D, F]
};

struct MixtureWeights {
  Linear router;  // [experts, D], whole on every rank.
  std::vector<GatedMlp> experts;
  Linear shared_router;  // [1, D]; empty without a shared expert.
  GatedMlp shared;
};

// x [T, D] -> this rank's part of the sum over the experts of each token [T, D], in the type of x; summed in fp32.
at::Tensor Mixture(const Ops& ops, const MixtureWeights& weights, const sharding::MoeSpec& spec,
                   sharding::Activation activation, const at::Tensor& x_TD);

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_MIXTURE_H_
