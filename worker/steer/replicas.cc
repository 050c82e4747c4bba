#include "worker/steer/replicas.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sharding/status_macros.h"

namespace bearing::steer {
namespace {

// Fewer tokens than this do not fill the products, more passes than this bring no better balance.
constexpr int64_t kLeastTokens = 512;
constexpr int64_t kPassesAReplica = 4;

// Draws items in ascending order and answers, for each asked in that order, whether it was drawn here.
class Drawn {
 public:
  explicit Drawn(comm::WorkQueue& queue) : queue_(queue) {}

  absl::StatusOr<bool> IsMine(int64_t item) {
    while (!exhausted_ && next_ < item) {
      BEARING_ASSIGN_OR_RETURN(const std::optional<int64_t> drawn, queue_.Next());
      exhausted_ = !drawn.has_value();
      next_ = drawn.value_or(next_);
    }
    return !exhausted_ && next_ == item;
  }

 private:
  comm::WorkQueue& queue_;
  int64_t next_ = -1;
  bool exhausted_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Replicas>> Replicas::Make(model::Decoder& decoder, comm::Grid& grid) {
  if (grid.replica_count() == 1) return std::make_unique<Replicas>(decoder);
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<comm::WorkQueue> queue, comm::WorkQueue::Make(grid));
  return std::unique_ptr<Replicas>(new Replicas(decoder, grid, std::move(queue)));
}

absl::Status Replicas::Meet(const absl::Status& mine) const {
  // Nothing bounds the time for which another replica is still busy, so nobody waits in a collective with a time limit yet.
  std::string nothing;
  for (int root = 0; root < grid_->world->size(); root += grid_->tensor_parallel->size()) {
    BEARING_RETURN_IF_ERROR(grid_->world->IdleWait(nothing, root));
  }
  return comm::AgreeOnStatus(*grid_->world, mine);
}

absl::Status Replicas::Run(absl::Span<model::Pass> passes, Handout handout, const Progress& progress) {
  if (grid_ == nullptr) return decoder_.RunPasses(passes, {{}, progress});
  const std::vector<size_t> order = model::PassOrder(passes);
  std::vector<int64_t> item_of(passes.size(), 0);
  for (size_t i = 0; i < order.size(); ++i) item_of[order[i]] = static_cast<int64_t>(i);
  model::PassControl control;
  control.progress = progress;
  if (handout == Handout::kInTurn || decoder_.residency() == model::Residency::kStreamed) {
    control.claim = [&](size_t pass) { return item_of[pass] % count() == index(); };
    return Meet(decoder_.RunPasses(passes, control));
  }
  BEARING_RETURN_IF_ERROR(queue_->Begin(static_cast<int64_t>(order.size())));
  Drawn drawn(*queue_);
  control.claim = [&](size_t pass) { return drawn.IsMine(item_of[pass]); };
  absl::Status ran = decoder_.RunPasses(passes, control);
  if (!ran.ok()) queue_->Cancel().IgnoreError();
  return Meet(ran);
}

absl::Status Replicas::Share(absl::Span<const double> costs, const std::function<absl::Status(size_t)>& work,
                             const Progress& progress) {
  double all = 0;
  for (const double cost : costs) all += cost;
  if (grid_ != nullptr) BEARING_RETURN_IF_ERROR(queue_->Begin(static_cast<int64_t>(costs.size())));
  std::optional<Drawn> drawn;
  if (grid_ != nullptr) drawn.emplace(*queue_);
  const auto run = [&]() -> absl::Status {
    double done = 0;
    for (size_t item = 0; item < costs.size(); ++item) {
      done += costs[item];
      if (drawn.has_value()) {
        BEARING_ASSIGN_OR_RETURN(const bool mine, drawn->IsMine(static_cast<int64_t>(item)));
        if (!mine) continue;
      }
      BEARING_RETURN_IF_ERROR(work(item));
      if (progress) BEARING_RETURN_IF_ERROR(progress(done / all));
    }
    return absl::OkStatus();
  };
  const absl::Status ran = run();
  if (grid_ == nullptr) return ran;
  if (!ran.ok()) queue_->Cancel().IgnoreError();
  return Meet(ran);
}

int64_t Replicas::Budget(int64_t budget, int64_t tokens) const {
  if (count() == 1) return budget;
  return std::min(budget, std::max(kLeastTokens, tokens / (kPassesAReplica * count())));
}

absl::Status Replicas::Sum(at::Tensor& tensor) const {
  return grid_ == nullptr ? absl::OkStatus() : grid_->replicas->AllReduce(tensor, comm::ReduceOp::kSum);
}

}  // namespace bearing::steer
