// Timings of the decoder's kernels on random data at the shapes of one rank. Collective: every rank calls each function, and
// gets the time of the slowest.
#ifndef BEARING_WORKER_CALIBRATE_KERNEL_RATES_H_
#define BEARING_WORKER_CALIBRATE_KERNEL_RATES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "jobs/plan/machine.h"
#include "worker/comm/communicator.h"
#include "worker/model/linear.h"
#include "worker/model/ops.h"

namespace bearing::worker {

// Of one rank.
struct KernelShapes {
  int64_t d_model = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;
  int64_t columns = 0;  // Of the MLP.
  int64_t vocab = 0;
  int64_t layers = 1;
  int64_t prefix_tokens = 32;
  int64_t prompt_tokens = 16;
};

// Seconds of one call of `work`, with what it gives to the group's device: the median of a few, and of those the largest of all
// ranks.
absl::StatusOr<double> TimeOnAllRanks(comm::Communicator& comm, const std::function<void()>& work);

class KernelRates {
 public:
  KernelRates(comm::Communicator& comm, const KernelShapes& shapes, at::ScalarType dtype, model::GemmPath path)
      : comm_(comm), shapes_(shapes), dtype_(dtype), path_(path) {}

  // The four products of a block at rising counts of tokens, over enough copies of the weights that caches do not hold them.
  absl::StatusOr<std::vector<jobs::ProductRate>> Products();

  // FLOP/s, counting 4 a pair of query and key and element of a head.
  absl::StatusOr<double> Attention();
  absl::StatusOr<double> DecodeAttention();

  // Bytes per second, counted as jobs/plan/decoder_cost.h counts them for a block.
  absl::StatusOr<double> Elementwise();
  absl::StatusOr<double> Memory();

  // Elements per second.
  absl::StatusOr<double> Vocabulary();
  absl::StatusOr<double> Edit(at::ScalarType stored);

  // Stored bytes per second that become weights of products.
  absl::StatusOr<double> Prepare(at::ScalarType stored);

 private:
  at::Tensor Random(at::IntArrayRef shape) const;  // Of the compute type, on the group's device.
  at::Tensor Made(at::Tensor tensor) const { return tensor.to(comm_.device()); }
  const model::Ops& ops() const { return model::OpsFor(comm_.device()); }

  comm::Communicator& comm_;
  KernelShapes shapes_;
  at::ScalarType dtype_;
  model::GemmPath path_;
};

}  // namespace bearing::worker

#endif  // BEARING_WORKER_CALIBRATE_KERNEL_RATES_H_
