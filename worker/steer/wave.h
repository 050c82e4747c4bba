// Rows that decode together, from their prefill to the end of the last one. Part of generate.cc.
#ifndef BEARING_WORKER_STEER_WAVE_H_
#define BEARING_WORKER_STEER_WAVE_H_

#include <vector>

#include "worker/steer/generate.h"

namespace bearing::steer {

class Wave {
 public:
  Wave(model::Decoder& decoder, absl::Span<const GenerationTask> tasks, const GenerationOptions& options,
       const Generation::Sink& sink)
      : decoder_(decoder), tasks_(tasks), options_(options), sink_(sink) {}

  void Add(size_t task, const RowBatcher& batcher, RowRange range);

  // `progress` takes the share of the wave that is done. Collective over the replica.
  absl::Status Run(const Replicas::Progress& progress);

 private:
  struct Running {
    GeneratedRow result;
    int cache_row = 0;
    int64_t room = 0;  // Tokens that may come.
  };

  absl::StatusOr<std::vector<int32_t>> NextTokens(at::Tensor logits_NV, int64_t step);
  // Records the new token of every running row; rows that have ended leave.
  absl::Status Accept(const std::vector<int32_t>& tokens);
  // Which rows hold a stop text, as the replica's first rank sees it.
  absl::StatusOr<std::string> FindStopTexts();
  absl::StatusOr<at::Tensor> Step(model::KvCache& cache, const model::RunOptions& run);

  model::Decoder& decoder_;
  absl::Span<const GenerationTask> tasks_;
  const GenerationOptions& options_;
  const Generation::Sink& sink_;
  model::PackedBatch prefill_;
  std::vector<int> segments_;
  std::vector<int64_t> read_;
  std::vector<Running> running_;
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_WAVE_H_
