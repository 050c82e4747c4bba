// The copies of the model that share a job's forward passes. One copy, the usual case, costs nothing here.
//
// Resident weights: each replica draws the next pass when it has finished one, so that a slow one takes fewer. Which replica
// runs a pass then depends on timing; results must not, so callers keep them by prompt or candidate (not in sums) and merge
// them with Sum. Passes whose results are sums are dealt out in turn instead. Streamed weights: dealt out in turn too, because
// all passes of a replica go through a layer together.
#ifndef BEARING_WORKER_STEER_REPLICAS_H_
#define BEARING_WORKER_STEER_REPLICAS_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/comm/grid.h"
#include "worker/comm/work_queue.h"
#include "worker/model/decoder.h"

namespace bearing::steer {

enum class Handout { kDrawn, kInTurn };

class Replicas {
 public:
  // The share of the work that is done, 0 to 1. Called on every rank, at different moments on different replicas; a bad status
  // (the same on all ranks of the replica) stops all replicas.
  using Progress = std::function<absl::Status(double share)>;

  // One copy of the model, on all ranks of the decoder's communicator.
  explicit Replicas(model::Decoder& decoder) : decoder_(decoder) {}

  // Those of `grid`, which outlives this; `decoder` is on its tensor-parallel group. Collective over the world, as is the
  // destructor.
  static absl::StatusOr<std::unique_ptr<Replicas>> Make(model::Decoder& decoder, comm::Grid& grid);

  model::Decoder& decoder() const { return decoder_; }
  int index() const { return grid_ == nullptr ? 0 : grid_->replica(); }
  int count() const { return grid_ == nullptr ? 1 : grid_->replica_count(); }

  // Runs each pass on one of the replicas; `done` of a pass is called on the ranks of that one. Collective over the world, and
  // all ranks get the same status.
  absl::Status Run(absl::Span<model::Pass> passes, Handout handout, const Progress& progress);

  // Runs items 0 to items - 1, in this order, each on one of the replicas: `work` is called with the items that fall to this
  // one. `costs` [items] weigh the progress. Collective likewise.
  absl::Status Share(absl::Span<const double> costs, const std::function<absl::Status(size_t item)>& work,
                     const Progress& progress);

  // Tokens a pass should take so that `tokens` of work fall into several passes a replica, at most `budget`.
  int64_t Budget(int64_t budget, int64_t tokens) const;

  // In place, the sum over the replicas of a tensor that each has filled where it did the work and left at zero elsewhere.
  // Ranks of one place in their replicas meet, so a tensor may differ between the ranks of a replica.
  absl::Status Sum(at::Tensor& tensor) const;

 private:
  Replicas(model::Decoder& decoder, comm::Grid& grid, std::unique_ptr<comm::WorkQueue> queue)
      : decoder_(decoder), grid_(&grid), queue_(std::move(queue)) {}

  // Ends a shared piece of work: waits for the other replicas, however long they take.
  absl::Status Meet(const absl::Status& mine) const;

  model::Decoder& decoder_;
  comm::Grid* grid_ = nullptr;  // Null: one replica.
  std::unique_ptr<comm::WorkQueue> queue_;
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_REPLICAS_H_
