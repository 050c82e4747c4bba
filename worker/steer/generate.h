// Greedy generation for many prompts under many interventions in one running batch. A row that ends leaves the batch at once.
#ifndef BEARING_WORKER_STEER_GENERATE_H_
#define BEARING_WORKER_STEER_GENERATE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/decoder.h"
#include "worker/steer/replicas.h"
#include "worker/steer/row_batches.h"

namespace bearing::steer {

// Prompts that are continued under one intervention.
struct GenerationTask {
  const Rows* rows = nullptr;
  model::Intervention intervention;
};

struct GenerationOptions {
  int64_t max_new_tokens = 64;
  int64_t budget = 4096;  // Tokens of a prefill, and with it the rows that decode together.
  // Called after each step on the ranks of each replica; a bad status stops the generation.
  Replicas::Progress progress = [](double) { return absl::OkStatus(); };
};

// result[task][row] = token ids without the end token. Every rank gets the same. Collective over all replicas.
absl::StatusOr<std::vector<Rows>> GenerateGreedy(Replicas& replicas, absl::Span<const GenerationTask> tasks,
                                                 const GenerationOptions& options);

// Id of the largest logit of each row over all ranks, the lowest id on ties. Collective.
absl::StatusOr<std::vector<int32_t>> ArgMax(const model::Decoder& decoder, const at::Tensor& local_logits_NV);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_GENERATE_H_
