// Does an edited checkpoint compute what the original computes under ablation? Logits of the last position of some rows.
#ifndef BEARING_WORKER_LOGIT_CHECK_H_
#define BEARING_WORKER_LOGIT_CHECK_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"
#include "worker/edit/projection.h"
#include "worker/model/decoder.h"
#include "worker/model/intervention.h"
#include "worker/steer/row_batches.h"

namespace bearing::worker {

struct LogitProbe {
  at::Tensor logits_NV;  // This rank's columns.
  at::Tensor probabilities_NV;
};

// Collective over the decoder's ranks.
absl::StatusOr<LogitProbe> RunLogitProbe(model::Decoder& decoder, const steer::Rows& rows,
                                         const model::Intervention& intervention);

// `prompts`, `max_logit_difference_to_ablation`, `max_logit_difference_to_baseline`, `mean_kl_to_ablation` of the edited
// model's probe. Collective over `comm`.
absl::StatusOr<nlohmann::json> CompareLogits(const model::Decoder& decoder, comm::Communicator& comm, const LogitProbe& edited,
                                             const LogitProbe& ablated, const LogitProbe& baseline);

// The same for two models at paths or addresses, one after the other, streamed, in float32, on rows of tokens drawn once for
// all. `basis` is what was removed. Collective; the errors of opening a checkpoint that can be run, agreed.
absl::StatusOr<nlohmann::json> CheckEditedLogits(comm::Communicator& comm, const std::string& original,
                                                 const std::string& edited, const edit::Basis& basis);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_LOGIT_CHECK_H_
