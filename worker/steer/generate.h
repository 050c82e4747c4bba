// Generation for many prompts under many interventions in one running batch. A row that ends leaves the batch at once.
//
// Rows decode together in waves. What a wave holds follows from the tasks and the options alone, so that a wave computes the
// same bits whenever and wherever it runs on this layout of ranks: a number's last bits depend on the rows beside it. Waves are
// made when their turn comes; memory does not grow with the number of rows, but for the rows' own tokens.
#ifndef BEARING_WORKER_STEER_GENERATE_H_
#define BEARING_WORKER_STEER_GENERATE_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/decoder.h"
#include "worker/steer/replicas.h"
#include "worker/steer/row_batches.h"
#include "worker/steer/sampling.h"

namespace bearing::steer {

// Prompts that are continued under one intervention.
struct GenerationTask {
  const Rows* rows = nullptr;
  model::Intervention intervention;
};

enum class Finish {
  kEnd,     // The model said an end token.
  kStop,    // A stop token, or a stop text, came.
  kLength,  // The most tokens, or the model's context, are used up.
};

struct GeneratedRow {
  size_t task = 0;
  size_t row = 0;
  std::vector<int32_t> tokens;  // Without the end or stop token.
  Finish finish = Finish::kLength;
  double metric = 0;  // Of the first token (concept_metric.h); 0 where none is asked for.
};

struct GenerationOptions {
  int64_t max_new_tokens = 64;
  int64_t budget = 4096;  // Tokens of a prefill, and with it the rows that decode together.
  // Called after each step on the ranks of each replica; a bad status stops the generation.
  Replicas::Progress progress = [](double) { return absl::OkStatus(); };

  int64_t max_rows = std::numeric_limits<int64_t>::max();  // That decode together: their cache must fit (CacheRows).
  Sampling sampling;                                       // A row's prompt is its index in its task.
  std::vector<int32_t> stop_tokens;                        // Beside the model's end tokens.
  std::vector<int32_t> metric_tokens;                      // For the metric, from the same forward pass; none = not measured.
  // Does the answer so far hold a stop text? Called on the first rank of each replica, which tells the others. Empty = no stop
  // texts; empty or not alike on all ranks (`has_stop_texts`).
  bool has_stop_texts = false;
  std::function<bool(absl::Span<const int32_t>)> holds_stop_text;
};

// Rows of one task in a wave.
struct WavePart {
  size_t task = 0;
  RowRange rows;
};
using WaveParts = std::vector<WavePart>;

class Generation {
 public:
  // Called on the ranks of the replica that ran it when a row has ended. What goes wrong there is told by `progress`.
  using Sink = std::function<void(const GeneratedRow& row)>;

  // `replicas` and the tasks' rows must outlive this. Rows must leave room for an answer in the model's context.
  Generation(Replicas& replicas, std::vector<GenerationTask> tasks, GenerationOptions options);

  const std::vector<WaveParts>& waves() const { return waves_; }

  // Runs every wave that is not in `finished` (empty, or one entry a wave, alike on all ranks). Collective over all replicas.
  absl::Status Run(const std::vector<bool>& finished, const Sink& sink);

 private:
  Replicas& replicas_;
  std::vector<GenerationTask> tasks_;
  GenerationOptions options_;
  std::vector<std::optional<RowBatcher>> batchers_;  // None for a task without rows.
  std::vector<WaveParts> waves_;
};

// GenerationOptions::budget with which the tasks fall into several waves for each replica.
int64_t WaveBudget(const Replicas& replicas, absl::Span<const GenerationTask> tasks, int64_t budget);

// Rows whose decoded tokens' keys and values fit into `bytes` of this rank; at least 1.
int64_t CacheRows(const model::Decoder& decoder, const sharding::RankPlan& plan, int64_t max_new_tokens, int64_t bytes);

// result[task][row] = token ids without the end token, as `options` say. Every rank gets the same. Collective over all
// replicas.
absl::StatusOr<std::vector<Rows>> GenerateRows(Replicas& replicas, absl::Span<const GenerationTask> tasks,
                                               const GenerationOptions& options);

// Id of the largest logit of each row over all ranks, the lowest id on ties. Collective.
absl::StatusOr<std::vector<int32_t>> ArgMax(const model::Decoder& decoder, const at::Tensor& local_logits_NV);

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_GENERATE_H_
