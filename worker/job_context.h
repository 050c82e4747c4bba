// What the stages of one job share. Every rank holds one; the fields marked rank 0 are null elsewhere. Stages run on all ranks
// and leave together: local failures go through AgreeOnStatus before anyone returns.
#ifndef BEARING_WORKER_JOB_CONTEXT_H_
#define BEARING_WORKER_JOB_CONTEXT_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "bridge/chat_tokenizer.h"
#include "jobs/artifacts.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/shard_plan.h"
#include "storage/model_source.h"
#include "worker/comm/communicator.h"
#include "worker/comm/grid.h"
#include "worker/memory.h"
#include "worker/model/decoder.h"
#include "worker/steer/replicas.h"
#include "worker/steer/row_batches.h"

namespace bearing::worker {

// Where progress goes and where a cancellation comes from. Used on rank 0 only; thread-safe.
class JobObserver {
 public:
  virtual ~JobObserver() = default;
  virtual void OnProgress(const bearing::v1::Progress& progress) = 0;
  virtual void OnStageDone(const bearing::v1::StageTime& time) = 0;
  // A line for the job's log; level is "info", "warning" or "error". Never prompts or answers.
  virtual void OnLog(const std::string& level, const std::string& text) {}
  // The user cancelled the job, or the lease was lost (message says which).
  virtual absl::Status ShouldStop() = 0;
};

struct JobContext {
  bearing::v1::JobSpec spec;
  sharding::ShardPlan plan;            // Of one replica: a part for each rank of grid.tensor_parallel.
  comm::Communicator* comm = nullptr;  // All ranks of the job.
  comm::Grid grid;
  const storage::ModelSource* source = nullptr;
  const sharding::CheckpointReader* reader = nullptr;
  int ranks_on_host = 1;  // Of the job, on this rank's host.
  int64_t token_budget = 2048;
  int64_t stream_tokens = 1 << 16;  // Tokens that go through a streamed layer together.
  double product_rate = 0;          // Of this rank, FLOPs a second (work_done.h); 0 until a decoder is loaded.
  bool may_keep_model = false;      // The group's next job may want what is loaded.

  JobObserver* observer = nullptr;                   // Rank 0.
  std::unique_ptr<jobs::OutputFolder> output;        // Rank 0.
  std::unique_ptr<bridge::ChatTokenizer> tokenizer;  // Rank 0.
  std::string model_digest;                          // Rank 0.

  bool is_rank0() const { return comm->rank() == 0; }

  // Measures ranks_on_host, token_budget and stream_tokens: before the decoder, with `comm` and `reader` set. Collective.
  absl::Status SetBudgets();

  // The decoder, loaded at first use. Collective.
  absl::StatusOr<model::Decoder*> GetDecoder();
  // The same with all copies of the model. Collective.
  absl::StatusOr<steer::Replicas*> GetReplicas();
  // The decoder of the job before, to begin with, and the one that is there at the end (may be null).
  void SetDecoder(std::unique_ptr<model::Decoder> decoder) { decoder_ = std::move(decoder); }
  std::unique_ptr<model::Decoder> TakeDecoder() {
    replicas_.reset();
    return std::move(decoder_);
  }
  void DropDecoder() {
    replicas_.reset();
    decoder_.reset();
    ReturnFreeMemory();
  }

  // Reports progress (rank 0) and agrees whether to go on: Cancelled or Aborted on all ranks when rank 0 was told to stop.
  // Collective.
  absl::Status Step(bearing::v1::Stage stage, int64_t done, int64_t total, const std::string& unit,
                    const std::string& note = "");

  // The same inside of a piece of work that replicas share, where they are not in step: `share` (0 to 1) of `total` is done.
  // Collective over the tensor-parallel group alone; only rank 0's group can be told to stop, and stops the others with it.
  absl::Status StepInReplica(bearing::v1::Stage stage, double share, int64_t total, const std::string& unit);

  // The JSON that rank 0 makes, on every rank. `make` runs on rank 0 only; its error becomes everyone's. Collective.
  template <typename Make>
  absl::StatusOr<nlohmann::json> FromRank0(const Make& make) {
    absl::StatusOr<nlohmann::json> mine = nlohmann::json();
    if (is_rank0()) mine = make();
    absl::Status agreed = comm::AgreeOnStatus(*comm, mine.status());
    if (!agreed.ok()) return agreed;
    std::string bytes;
    if (is_rank0()) {
      const std::vector<uint8_t> packed = nlohmann::json::to_cbor(*mine);
      bytes.assign(packed.begin(), packed.end());
    }
    absl::Status sent = comm->BroadcastBytes(bytes, 0);
    if (!sent.ok()) return sent;
    return nlohmann::json::from_cbor(bytes.begin(), bytes.end());
  }

  // Runs `work` on rank 0; its status becomes everyone's. Collective.
  template <typename Work>
  absl::Status OnRank0(const Work& work) {
    return comm::AgreeOnStatus(*comm, is_rank0() ? work() : absl::OkStatus());
  }

  // What `setting` says, or resident where the model fits on every rank. Collective.
  absl::StatusOr<model::Residency> ChooseResidency(const sharding::CheckpointReader& model, const sharding::ShardPlan& cut,
                                                   at::ScalarType type, const std::string& setting) const;

  // Is there room on every rank for a model of the same cut that is read layer by layer, beside what is loaded? Collective.
  absl::StatusOr<bool> HasRoomToStream(const sharding::CheckpointReader& model, at::ScalarType type) const;

  // How many tokens passes of a model take, from the memory that is free now; the same on every rank. Collective.
  struct PassSizes {
    int64_t token_budget = 0;
    int64_t stream_tokens = 0;
  };
  absl::StatusOr<PassSizes> MeasurePassSizes(const sharding::ModelConfig& config) const;

  // Memory that every rank has free, at the least. Collective.
  absl::StatusOr<int64_t> LeastFreeMemory() const;

 private:
  std::unique_ptr<model::Decoder> decoder_;
  std::unique_ptr<steer::Replicas> replicas_;
};

// Compute type of the job.
at::ScalarType ComputeType(const bearing::v1::JobSpec& spec);
at::ScalarType ComputeType(const std::string& dtype);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_JOB_CONTEXT_H_
