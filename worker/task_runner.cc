#include "worker/task_runner.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <google/protobuf/util/json_util.h>

#include <chrono>
#include <exception>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "jobs/artifacts.h"
#include "jobs/atomic_file.h"
#include "jobs/cost_fields.h"
#include "jobs/job_spec.h"
#include "jobs/work_folder.h"
#include "sharding/status_macros.h"
#include "storage/location.h"
#include "storage/model_source.h"
#include "worker/memory.h"
#include "worker/model/work_done.h"
#include "worker/publish_together.h"
#include "worker/stages/edit_spec_of.h"
#include "worker/stages/prompt_rows.h"
#include "worker/stages/stages.h"

namespace bearing::worker {
namespace {

struct StageEntry {
  bearing::v1::Stage id;
  const char* name;
  absl::StatusOr<StageFiles> (*run)(JobContext&);
  bool needs_model;  // Loaded before the stage's time starts.
};

constexpr StageEntry kStages[] = {
    {bearing::v1::STAGE_COLLECT, "collect", RunCollect, true},
    {bearing::v1::STAGE_SELECT, "select", RunSelect, true},
    {bearing::v1::STAGE_EVALUATE, "evaluate", RunEvaluate, true},
    {bearing::v1::STAGE_JUDGE, "judge", RunJudge, false},
    {bearing::v1::STAGE_COST, "cost", RunCost, true},
    {bearing::v1::STAGE_EDIT, "edit", RunEdit, false},
    {bearing::v1::STAGE_VERIFY, "verify", RunVerify, false},
    {bearing::v1::STAGE_REPORT, "report", RunReport, false},
};

bool IsSkipped(const bearing::v1::JobSpec& spec, bearing::v1::Stage stage) {
  if (stage == bearing::v1::STAGE_EVALUATE || stage == bearing::v1::STAGE_JUDGE) return spec.evaluate().skip();
  if (stage == bearing::v1::STAGE_COST) return !jobs::MeasuresCosts(spec);
  if (stage == bearing::v1::STAGE_EDIT || stage == bearing::v1::STAGE_VERIFY) return spec.edit().skip();
  return false;
}

// The lease of rank 0 on every rank.
absl::StatusOr<bearing::v1::Lease> ShareLease(comm::Communicator& comm, const bearing::v1::Lease* lease) {
  std::string bytes = lease != nullptr ? lease->SerializeAsString() : "";
  BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(bytes, 0));
  bearing::v1::Lease shared;
  if (!shared.ParseFromString(bytes)) return absl::InternalError("lease does not parse");
  return shared;
}

sharding::Range FromProto(const bearing::v1::Range& range) { return {range.begin(), range.end()}; }

// The plan that came with the lease, checked against the one this build would make: both sides must cut alike.
absl::StatusOr<sharding::ShardPlan> PlanOf(const bearing::v1::Lease& lease, const sharding::CheckpointReader& reader,
                                           int ranks) {
  BEARING_ASSIGN_OR_RETURN(sharding::ShardPlan plan, sharding::MakeShardPlan(reader.config(), reader.layout(), ranks));
  if (lease.plan().ranks_size() != ranks) {
    return absl::FailedPreconditionError(
        absl::StrCat("the plan is for another group: plan=", lease.plan().ranks_size(), " ranks=", ranks));
  }
  for (int r = 0; r < ranks; ++r) {
    const bearing::v1::RankPlan& given = lease.plan().ranks(r);
    const sharding::RankPlan& own = plan.ranks[r];
    if (!(FromProto(given.heads()) == own.heads && FromProto(given.kv_heads()) == own.kv_heads &&
          FromProto(given.mlp()) == own.mlp && FromProto(given.expert()) == own.expert &&
          FromProto(given.shared_expert()) == own.shared_expert && FromProto(given.vocab()) == own.vocab)) {
      return absl::FailedPreconditionError(
          absl::StrCat("the coordinator's plan differs from this worker's (model changed, or versions differ): rank=", r));
    }
  }
  return plan;
}

// A finished run of just these digests.
bool HoldsFinishedRun(const std::string& folder, const std::string& spec_digest, const std::string& model_digest) {
  const absl::StatusOr<std::string> text = jobs::ReadFile(folder + "/manifest.json");
  if (!text.ok()) return false;
  const nlohmann::json manifest = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return manifest.is_object() && manifest.value("spec_digest", nlohmann::json()) == spec_digest &&
         manifest.value("model_digest", nlohmann::json()) == model_digest;
}

absl::Status PrepareRank0(JobContext& context, const storage::ModelSource& model, int attempt) {
  BEARING_ASSIGN_OR_RETURN(context.model_digest, context.reader->Digest());
  BEARING_ASSIGN_OR_RETURN(context.tokenizer, bridge::ChatTokenizer::Load(model.folder(), model.chat_template()));
  BEARING_ASSIGN_OR_RETURN(const std::string digest, jobs::SpecDigest(context.spec));
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(context.spec, &json).ok()) return absl::InternalError("job does not print");
  BEARING_ASSIGN_OR_RETURN(const std::string folder, jobs::WorkFolder(context.spec, digest));
  // An attempt that ended behind the manifest may have been lost before the coordinator heard of it.
  const bool finished_before = attempt > 1 && HoldsFinishedRun(folder, digest, context.model_digest);
  const bool accepts = jobs::IsOutputInBucket(context.spec) || finished_before;
  const auto finished = accepts ? jobs::FinishedRun::kAccept : jobs::FinishedRun::kRefuse;
  if (!finished_before) BEARING_RETURN_IF_ERROR(jobs::CheckOutputPlace(context.spec, digest));
  BEARING_ASSIGN_OR_RETURN(jobs::OutputFolder output,
                           jobs::OutputFolder::Open(folder, json, digest, context.model_digest, finished));
  context.output = std::make_unique<jobs::OutputFolder>(std::move(output));
  return absl::OkStatus();
}

// What all ranks have computed since `before`. Collective.
absl::Status AddWork(JobContext& context, const model::WorkDone& before, double seconds, bearing::v1::StageTime& time) {
  const model::WorkDone& now = model::WorkOfThread();
  // Ranks of a tensor-parallel group run the same tokens.
  at::Tensor sums = at::tensor(
      {now.flops - before.flops, (now.tokens - before.tokens) / context.grid.tensor_parallel->size(), context.product_rate},
      at::kDouble);
  BEARING_RETURN_IF_ERROR(context.comm->AllReduce(sums, comm::ReduceOp::kSum));
  const double* const sum = sums.const_data_ptr<double>();
  time.set_flops(sum[0]);
  time.set_tokens(sum[1]);
  if (seconds > 0 && sum[2] > 0) time.set_utilization(sum[0] / (seconds * sum[2]));
  return absl::OkStatus();
}

enum class FoundStage { kNone, kOfEarlierAttempt, kOfOtherJob };

// Was the stage finished by an earlier attempt, or for another job of this group? `key` is what it is remembered by.
absl::StatusOr<FoundStage> FindStage(JobContext& context, const StageEntry& stage, const SharedStages& shared,
                                     std::string& key) {
  if (context.output->IsStageDone(stage.name)) return FoundStage::kOfEarlierAttempt;
  BEARING_RETURN_IF_ERROR(context.output->DropManifest());
  BEARING_ASSIGN_OR_RETURN(key, SharedStages::KeyOf(context, stage.id));
  BEARING_ASSIGN_OR_RETURN(const bool taken, shared.Take(key, stage.name, *context.output));
  return taken ? FoundStage::kOfOtherJob : FoundStage::kNone;
}

absl::Status RunStages(JobContext& context, SharedStages& shared, bearing::v1::Stage& at) {
  for (const StageEntry& stage : kStages) {
    if (IsSkipped(context.spec, stage.id)) continue;
    at = stage.id;
    BEARING_RETURN_IF_ERROR(context.Step(stage.id, 0, 0, ""));
    std::string key;
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json answer, context.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
      BEARING_ASSIGN_OR_RETURN(const FoundStage found, FindStage(context, stage, shared, key));
      return nlohmann::json(found);
    }));
    bearing::v1::StageTime time;
    time.set_stage(stage.id);
    if (const auto place = answer.get<FoundStage>(); place != FoundStage::kNone) {
      time.set_resumed(true);
      time.set_shared(place == FoundStage::kOfOtherJob);
      if (context.is_rank0()) {
        const auto seconds = context.output->StageSeconds();
        if (const auto entry = seconds.find(stage.name); entry != seconds.end()) time.set_seconds(entry->second);
        context.observer->OnStageDone(time);
      }
      continue;
    }
    context.comm->SetStage(stage.name);
    if (stage.needs_model) BEARING_RETURN_IF_ERROR(context.GetDecoder().status());
    const model::WorkDone before = model::WorkOfThread();
    const auto start = std::chrono::steady_clock::now();
    BEARING_ASSIGN_OR_RETURN(const StageFiles files, stage.run(context));
    ReturnFreeMemory();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    BEARING_RETURN_IF_ERROR(AddWork(context, before, took.count(), time));
    BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return context.output->MarkStageDone(stage.name, files, took.count()); }));
    if (context.is_rank0()) shared.Add(key, stage.name, context);
    time.set_seconds(took.count());
    if (context.is_rank0()) context.observer->OnStageDone(time);
  }
  return context.OnRank0([&]() -> absl::Status {
    // Who has lost the lease, or was cancelled, finishes nothing.
    BEARING_RETURN_IF_ERROR(context.observer->ShouldStop());
    if (context.output->IsFinished()) return absl::OkStatus();  // And not published to its end.
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json provenance, Provenance(context));
    return context.output->WriteManifest(provenance);
  });
}

// Puts the work folder into the bucket, where the output is one.
absl::Status PublishOutput(JobContext& context) {
  if (!jobs::IsOutputInBucket(context.spec)) return absl::OkStatus();
  const auto destination = storage::OpenLocation(context.spec.output());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, destination.status()));
  std::string folder = context.is_rank0() ? context.output->path() : "";
  BEARING_RETURN_IF_ERROR(context.comm->BroadcastBytes(folder, 0));
  const edit::RankGroup group{context.comm->rank(), context.comm->size(),
                              [&](const absl::Status& status) { return comm::AgreeOnStatus(*context.comm, status); }};
  const auto show = [&](int64_t done, int64_t total) {
    if (!context.is_rank0()) return absl::OkStatus();
    bearing::v1::Progress progress;
    progress.set_stage(bearing::v1::STAGE_REPORT);
    progress.set_done(done >> 20);
    progress.set_total(total >> 20);
    progress.set_unit("MiB of rank 0");
    progress.set_note("upload");
    context.observer->OnProgress(progress);
    return context.observer->ShouldStop();
  };
  BEARING_RETURN_IF_ERROR(PublishTogether(group, folder, *destination, {}, show));
  // Whose logs lie there removes them.
  if (context.is_rank0()) jobs::RemoveWorkFolder(folder);
  return absl::OkStatus();
}

// Is what is kept the job's model? Rank 0 compares the files, for all. What is not is dropped, before memory is measured.
absl::StatusOr<bool> IsKept(JobContext& context, const bearing::v1::Lease& lease, const sharding::CheckpointReader& reader,
                            KeptModel& kept) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json same, context.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
    if (kept.key.empty() || kept.key != lease.model_key()) return nlohmann::json(false);
    BEARING_ASSIGN_OR_RETURN(const std::string digest, reader.Digest());
    return nlohmann::json(digest == kept.digest);
  }));
  if (!same.get<bool>()) {
    kept.Drop();
    ReturnFreeMemory();
  }
  return same.get<bool>();
}

// After a job that left its model loaded.
void Keep(JobContext& context, const bearing::v1::Lease& lease, KeptModel& kept) {
  std::unique_ptr<model::Decoder> decoder = context.TakeDecoder();
  const bool stays = decoder != nullptr && decoder->residency() == model::Residency::kResident && !lease.model_key().empty();
  // The decoder goes before the communicators that it refers to.
  if (!stays) {
    decoder.reset();
    return kept.Drop();
  }
  kept.key = lease.model_key();
  kept.digest = context.model_digest;
  kept.token_budget = context.token_budget;
  kept.stream_tokens = context.stream_tokens;
  kept.product_rate = context.product_rate;
  kept.grid = std::move(context.grid);
  kept.decoder = std::move(decoder);
}

absl::Status RunAll(JobContext& context, const bearing::v1::Lease& shared, TaskOutcome& outcome, GroupMemory& memory) {
  KeptModel& kept = memory.model;
  comm::Communicator& comm = *context.comm;
  JobObserver* const observer = context.observer;
  context.spec = shared.spec();
  outcome.error_stage = bearing::v1::STAGE_LOAD;
  auto model = storage::ModelSource::Open(context.spec.model().path(), context.spec.model().chat_template());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, model.status()));
  auto reader = (*model)->OpenCheckpoint();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, reader.status()));
  context.source = model->get();
  context.reader = reader->get();
  // A streamed decoder reads ahead from the reader: it goes first, on errors too. What stays has been taken by then.
  const absl::Cleanup drop = [&context] { context.DropDecoder(); };
  BEARING_ASSIGN_OR_RETURN(const bool is_kept, IsKept(context, shared, **reader, kept));
  if (is_kept) {
    kept.key.clear();  // Until this job has gone well too.
    context.reader = kept.reader.get();
    context.grid = std::move(kept.grid);
    context.SetDecoder(std::move(kept.decoder));
    if (context.is_rank0()) observer->OnLog("info", "the model is still loaded");
  } else {
    BEARING_ASSIGN_OR_RETURN(context.grid, comm::MakeGrid(comm, jobs::TensorParallel(shared.spec(), comm.size())));
  }
  auto plan = PlanOf(shared, **reader, context.grid.tensor_parallel->size());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, plan.status()));
  context.plan = *std::move(plan);
  BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return PrepareRank0(context, **model, shared.attempt()); }));
  BEARING_RETURN_IF_ERROR(CheckEditFits(context));
  BEARING_RETURN_IF_ERROR(context.SetBudgets());
  if (is_kept) {  // Measured before the model was loaded.
    context.token_budget = kept.token_budget;
    context.stream_tokens = kept.stream_tokens;
    context.product_rate = kept.product_rate;
  }
  if (!context.spec.evaluate().skip()) BEARING_RETURN_IF_ERROR(CheckTestPrompts(context));
  BEARING_RETURN_IF_ERROR(RunStages(context, memory.stages, outcome.error_stage));
  if (context.is_rank0()) {
    BEARING_ASSIGN_OR_RETURN(outcome.result, ReadResult(context));
  }
  BEARING_RETURN_IF_ERROR(PublishOutput(context));
  Keep(context, shared, kept);
  if (!kept.key.empty() && !is_kept) {
    kept.source = *std::move(model);
    kept.reader = *std::move(reader);
  }
  return absl::OkStatus();
}

// What an interrupted stage had begun to write beside the artifacts, here and in the bucket.
absl::Status DropStaged(JobContext& context) {
  if (context.output == nullptr) return absl::OkStatus();
  namespace fs = std::filesystem;
  std::error_code error;
  for (fs::directory_iterator at(context.output->path(), error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    const std::string name = at->path().filename().string();
    if (absl::EndsWith(name, ".partial") || jobs::IsTemporaryName(name)) fs::remove_all(at->path(), ignored);
  }
  if (!jobs::IsOutputInBucket(context.spec) || !context.output->IsFinished()) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const auto destination, storage::OpenLocation(context.spec.output()));
  return DiscardStaged(context.output->path(), destination);
}

}  // namespace

TaskOutcome RunTask(comm::Communicator& comm, const bearing::v1::Lease* lease, JobObserver* observer, GroupMemory* memory,
                    WhenCancelled when_cancelled) {
  TaskOutcome outcome;
  GroupMemory none;
  // An exception leaves this rank out of step with the others: the group cannot go on.
  try {
    absl::StatusOr<bearing::v1::Lease> shared = ShareLease(comm, lease);
    if (!shared.ok()) {
      outcome.status = shared.status();
      return outcome;
    }
    JobContext context;
    context.comm = &comm;
    context.observer = observer;
    context.may_keep_model = memory != nullptr;
    outcome.status = RunAll(context, *shared, outcome, memory == nullptr ? none : *memory);
    // Agreed: no rank writes any more.
    if (absl::IsCancelled(outcome.status) && when_cancelled == WhenCancelled::kDropStaged) {
      const absl::Status dropped = DropStaged(context);
      if (!dropped.ok()) observer->OnLog("warning", absl::StrCat("staged files are left: ", std::string(dropped.message())));
    }
  } catch (const c10::Error& error) {
    outcome.status = absl::InternalError(absl::StrCat("libtorch: ", error.what_without_backtrace()));
    if (comm.size() > 1) comm.Abort(std::string(outcome.status.message()));
  } catch (const std::bad_alloc&) {
    outcome.status = absl::ResourceExhaustedError("out of memory");
    if (comm.size() > 1) comm.Abort("out of memory");
  } catch (const std::exception& error) {
    outcome.status = absl::InternalError(error.what());
    if (comm.size() > 1) comm.Abort(error.what());
  }
  return outcome;
}

}  // namespace bearing::worker
