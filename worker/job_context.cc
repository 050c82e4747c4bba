#include "worker/job_context.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "sharding/memory_rules.h"
#include "sharding/status_macros.h"
#include "worker/device.h"
#include "worker/model/work_done.h"

namespace bearing::worker {
namespace {

// How many of the ranks run on this rank's host.
absl::StatusOr<int> RanksOnHost(comm::Communicator& comm) {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  const auto mine = static_cast<int64_t>(std::hash<std::string_view>()(name));
  BEARING_ASSIGN_OR_RETURN(const at::Tensor all, comm.AllGather(at::full({1}, mine, at::kLong)));
  return static_cast<int>(at::sum(all.eq(mine)).item<int64_t>());
}

// Weights on a device are of the compute type; on this processor they may be widened.
int64_t ElementBytes(const comm::Communicator& comm, at::ScalarType type) {
  return comm.device().is_cpu() ? model::HeldElementBytes(type, model::ChooseGemmPath(type))
                                : static_cast<int64_t>(c10::elementSize(type));
}

}  // namespace

at::ScalarType ComputeType(const std::string& dtype) { return dtype == "bfloat16" ? at::kBFloat16 : at::kFloat; }

at::ScalarType ComputeType(const bearing::v1::JobSpec& spec) { return ComputeType(spec.model().dtype()); }

absl::StatusOr<model::Decoder*> JobContext::GetDecoder() {
  if (decoder_ == nullptr) {
    model::DecoderOptions options;
    options.dtype = ComputeType(spec);
    BEARING_ASSIGN_OR_RETURN(options.residency, ChooseResidency(*reader, plan, options.dtype, spec.model().residency()));
    options.stream_tokens = stream_tokens;
    options.split = [this](int64_t parts) {
      if (!is_rank0()) return;
      std::fprintf(stderr,
                   "bearing-worker: the residual streams of all prompts do not fit together: weights are read %d times\n",
                   static_cast<int>(parts));
    };
    options.progress = [this](int64_t done, int64_t total) {
      if (!is_rank0()) return;
      bearing::v1::Progress progress;
      progress.set_stage(bearing::v1::STAGE_LOAD);
      progress.set_done(done);
      progress.set_total(total);
      progress.set_unit("layers");
      observer->OnProgress(progress);
    };
    BEARING_ASSIGN_OR_RETURN(decoder_, model::Decoder::Load(*reader, plan, *grid.tensor_parallel, options));
    if (product_rate == 0) {
      product_rate = model::MeasureProductRate(decoder_->dtype(), decoder_->gemm_path(), decoder_->device());
    }
  }
  return decoder_.get();
}

absl::StatusOr<steer::Replicas*> JobContext::GetReplicas() {
  BEARING_ASSIGN_OR_RETURN(model::Decoder * decoder, GetDecoder());
  if (replicas_ == nullptr) {
    BEARING_ASSIGN_OR_RETURN(replicas_, steer::Replicas::Make(*decoder, grid));
  }
  return replicas_.get();
}

absl::Status JobContext::SetBudgets() {
  BEARING_ASSIGN_OR_RETURN(ranks_on_host, RanksOnHost(*comm));
  BEARING_ASSIGN_OR_RETURN(const PassSizes sizes, MeasurePassSizes(reader->config()));
  token_budget = sizes.token_budget;
  stream_tokens = sizes.stream_tokens;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> JobContext::LeastFreeMemory() const {
  const absl::StatusOr<int64_t> memory = RankMemoryBytes(*comm, ranks_on_host);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*comm, memory.status()));
  at::Tensor negated = at::full({1}, -*memory, at::kLong);  // The least is the largest negative.
  BEARING_RETURN_IF_ERROR(comm->AllReduce(negated, comm::ReduceOp::kMax));
  return -negated.item<int64_t>();
}

absl::StatusOr<JobContext::PassSizes> JobContext::MeasurePassSizes(const sharding::ModelConfig& config) const {
  // A quarter of what is free for activations.
  BEARING_ASSIGN_OR_RETURN(const int64_t free, LeastFreeMemory());
  const int64_t memory = sharding::ActivationMemory(free);
  return PassSizes{sharding::TokenBudget(config, memory), sharding::StreamTokens(config, memory)};
}

absl::StatusOr<model::Residency> JobContext::ChooseResidency(const sharding::CheckpointReader& model,
                                                             const sharding::ShardPlan& cut, at::ScalarType type,
                                                             const std::string& setting) const {
  if (setting == "resident") return model::Residency::kResident;
  if (setting == "streamed") return model::Residency::kStreamed;
  const sharding::RankElements elements = sharding::CountElements(model.layout(), cut.ranks[grid.tensor_parallel->rank()]);
  const int64_t bytes = elements.resident * ElementBytes(*comm, type);
  const absl::StatusOr<int64_t> memory = RankMemoryBytes(*comm, ranks_on_host);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*comm, memory.status()));
  const bool fits = sharding::FitsResident(bytes, *memory);
  at::Tensor misfits = at::full({1}, fits ? 0 : 1, at::kLong);
  BEARING_RETURN_IF_ERROR(comm->AllReduce(misfits, comm::ReduceOp::kMax));
  return misfits.item<int64_t>() == 0 ? model::Residency::kResident : model::Residency::kStreamed;
}

absl::StatusOr<bool> JobContext::HasRoomToStream(const sharding::CheckpointReader& model, at::ScalarType type) const {
  const sharding::RankElements elements = sharding::CountElements(model.layout(), plan.ranks[grid.tensor_parallel->rank()]);
  at::Tensor bytes = at::full({1}, elements.streamed * ElementBytes(*comm, type), at::kLong);
  BEARING_RETURN_IF_ERROR(comm->AllReduce(bytes, comm::ReduceOp::kMax));
  BEARING_ASSIGN_OR_RETURN(const int64_t free, LeastFreeMemory());
  return sharding::FitsResident(bytes.item<int64_t>(), free);
}

absl::Status JobContext::Step(bearing::v1::Stage stage, int64_t done, int64_t total, const std::string& unit,
                              const std::string& note) {
  if (!is_rank0()) return comm::AgreeOnStatus(*comm, absl::OkStatus());
  bearing::v1::Progress progress;
  progress.set_stage(stage);
  progress.set_done(done);
  progress.set_total(total);
  progress.set_unit(unit);
  progress.set_note(note);
  observer->OnProgress(progress);
  return comm::AgreeOnStatus(*comm, observer->ShouldStop());
}

absl::Status JobContext::StepInReplica(bearing::v1::Stage stage, double share, int64_t total, const std::string& unit) {
  if (grid.replica() != 0) return absl::OkStatus();
  absl::Status stop;
  if (is_rank0()) {
    bearing::v1::Progress progress;
    progress.set_stage(stage);
    progress.set_done(std::llround(share * static_cast<double>(total)));
    progress.set_total(total);
    progress.set_unit(unit);
    observer->OnProgress(progress);
    stop = observer->ShouldStop();
  }
  return comm::AgreeOnStatus(*grid.tensor_parallel, stop);
}

}  // namespace bearing::worker
