#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "jobs/completion_journal.h"
#include "jobs/judge/response_text.h"
#include "sharding/status_macros.h"
#include "worker/stages/chosen_direction.h"
#include "worker/stages/evaluation.h"
#include "worker/stages/prompt_rows.h"
#include "worker/stages/stages.h"
#include "worker/steer/generate.h"

namespace bearing::worker {
namespace {

using bearing::v1::STAGE_EVALUATE;
namespace fs = std::filesystem;

constexpr char kFormat[] = "bearing-completions/1";
// Tokens behind a stop text's own bytes that are decoded with it: a token may be part of a character, or no text at all.
constexpr size_t kStopMargin = 16;

const char* FinishName(steer::Finish finish) {
  switch (finish) {
    case steer::Finish::kEnd:
      return "end";
    case steer::Finish::kStop:
      return "stop";
    case steer::Finish::kLength:
      return "length";
  }
  return "";
}

class EvaluateStage {
 public:
  EvaluateStage(JobContext& context, steer::Replicas& replicas) : context_(context), replicas_(replicas) {}

  absl::StatusOr<StageFiles> Run() {
    BEARING_RETURN_IF_ERROR(LoadTasks());
    steer::GenerationOptions options = Options();
    BEARING_RETURN_IF_ERROR(AgreeOnCut(options));
    BEARING_RETURN_IF_ERROR(OpenRecord());
    steer::Generation generation(replicas_, tasks_, options);
    BEARING_ASSIGN_OR_RETURN(const std::vector<bool> finished, FindFinished(generation.waves()));
    const auto sink = [this](const steer::GeneratedRow& row) {
      if (writer_ != nullptr) Record(row);
    };
    BEARING_RETURN_IF_ERROR(generation.Run(finished, sink));
    if (writer_ != nullptr) writer_->Sync();
    BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context_.comm, RecordStatus()));
    StageFiles files = {kCompletionsPlan};
    if (context_.is_rank0()) {
      for (std::string& file : CompletionsFiles(context_)) files.push_back(std::move(file));
    }
    return files;
  }

 private:
  absl::Status LoadTasks() {
    BEARING_ASSIGN_OR_RETURN(const ChosenDirection direction, LoadChosenDirection(context_));
    const bearing::v1::Prompts& prompts = context_.spec.prompts();
    BEARING_ASSIGN_OR_RETURN(positive_, LoadPromptRows(context_, prompts.positive().test(), kAnswerRoom));
    BEARING_ASSIGN_OR_RETURN(negative_, LoadPromptRows(context_, prompts.negative().test(), kAnswerRoom));
    for (const Condition& condition : kConditions) {
      steer::GenerationTask task;
      task.rows = &(condition.is_positive() ? positive_ : negative_).rows;
      const std::string_view what = condition.intervention;
      if (what == "ablation") task.intervention = direction.Ablation();
      if (what == "addition") task.intervention = direction.Addition(context_.spec.evaluate().addition_factor());
      rows_.push_back(static_cast<int64_t>(task.rows->size()));
      all_ += rows_.back();
      tasks_.push_back(std::move(task));
    }
    BEARING_ASSIGN_OR_RETURN(identity_, context_.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
      BEARING_ASSIGN_OR_RETURN(const std::string digest, jobs::Sha256OfFile(context_.output->PathOf("direction.safetensors")));
      BEARING_ASSIGN_OR_RETURN(const nlohmann::json candidates, ReadJsonArtifact(context_, "candidates.json"));
      return nlohmann::json{{"format", kFormat},
                            {"model_digest", context_.model_digest},
                            {"direction", digest},
                            {"metric_token_ids", candidates.at("metric_token_ids")},
                            {"rows", rows_}};
    }));
    return absl::OkStatus();
  }

  steer::GenerationOptions Options() {
    const bearing::v1::Evaluate& evaluate = context_.spec.evaluate();
    steer::GenerationOptions options;
    options.max_new_tokens = evaluate.max_new_tokens();
    options.sampling = {evaluate.temperature(), evaluate.top_p(), static_cast<uint64_t>(evaluate.seed())};
    options.stop_tokens.assign(evaluate.stop_token_ids().begin(), evaluate.stop_token_ids().end());
    options.metric_tokens = identity_.at("metric_token_ids").get<std::vector<int32_t>>();
    options.has_stop_texts = evaluate.stop_size() > 0;
    options.holds_stop_text = [this](absl::Span<const int32_t> tokens) { return HoldsStopText(tokens); };
    options.progress = [this, tokens = all_ * options.max_new_tokens](double share) {
      BEARING_RETURN_IF_ERROR(context_.StepInReplica(STAGE_EVALUATE, share, tokens, "tokens (at the most)"));
      // A full disk must stop the work, and on all ranks of the replica.
      return comm::AgreeOnStatus(*context_.grid.tensor_parallel, RecordStatus());
    };
    return options;
  }

  // How rows are cut into waves is that of the run that began: memory may differ now, and the bits depend on the cut.
  absl::Status AgreeOnCut(steer::GenerationOptions& options) {
    BEARING_ASSIGN_OR_RETURN(const int64_t free, context_.LeastFreeMemory());
    const int64_t rows = steer::CacheRows(replicas_.decoder(), context_.plan.ranks[context_.grid.tensor_parallel->rank()],
                                          options.max_new_tokens, free / 2);
    at::Tensor negated = at::full({1}, -rows, at::kLong);
    BEARING_RETURN_IF_ERROR(context_.comm->AllReduce(negated, comm::ReduceOp::kMax));
    const int64_t budget = steer::WaveBudget(replicas_, tasks_, context_.token_budget);
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json plan, context_.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
      nlohmann::json fresh = identity_;
      fresh["budget"] = budget;
      fresh["max_rows"] = -negated.item<int64_t>();
      return ClaimRecord(std::move(fresh));
    }));
    options.budget = plan.at("budget").get<int64_t>();
    options.max_rows = plan.at("max_rows").get<int64_t>();
    return absl::OkStatus();
  }

  // The plan of the record that is there, if it is of this direction and these prompts; else a new record is begun. Rank 0.
  absl::StatusOr<nlohmann::json> ClaimRecord(nlohmann::json fresh) const {
    const std::string path = context_.output->PathOf(kCompletionsPlan);
    if (fs::exists(path)) {
      const absl::StatusOr<std::string> text = jobs::ReadFile(path);
      if (text.ok()) {
        nlohmann::json old = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
        if (old.is_object() && old.contains("budget") && old.contains("max_rows")) {
          fresh["budget"] = old["budget"];
          fresh["max_rows"] = old["max_rows"];
          if (old == fresh) return old;
        }
      }
    }
    std::error_code error;
    fs::remove_all(context_.output->PathOf(kCompletionsFolder), error);
    if (!error) fs::create_directories(context_.output->PathOf(kCompletionsFolder), error);
    if (error) {
      return absl::UnavailableError(absl::StrCat("cannot begin the record of completions: ", error.message(),
                                                 ": folder=", context_.output->PathOf(kCompletionsFolder)));
    }
    BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(path, fresh.dump(1) + "\n"));
    return fresh;
  }

  // Each replica's first rank writes a file of its own; ranks on several hosts share the output folder.
  absl::Status OpenRecord() {
    BEARING_ASSIGN_OR_RETURN(index_files_, context_.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
      nlohmann::json files = nlohmann::json::array();
      for (const std::string& file : CompletionsFiles(context_)) files.push_back(context_.output->PathOf(file));
      return nlohmann::json{{"folder", context_.output->path()}, {"files", files}};
    }));
    const auto open = [&]() -> absl::Status {
      if (context_.grid.tensor_parallel->rank() != 0) return absl::OkStatus();
      if (!context_.is_rank0()) {
        BEARING_ASSIGN_OR_RETURN(own_tokenizer_, bridge::ChatTokenizer::Load(context_.source->folder()));
      }
      tokenizer_ = context_.is_rank0() ? context_.tokenizer.get() : own_tokenizer_.get();
      const std::string folder = index_files_.at("folder").get<std::string>();
      BEARING_ASSIGN_OR_RETURN(
          writer_, jobs::CompletionWriter::Open(absl::StrCat(folder, "/", CompletionsFile(context_.grid.replica()))));
      return absl::OkStatus();
    };
    return comm::AgreeOnStatus(*context_.comm, open());
  }

  // Waves of which every row is recorded.
  absl::StatusOr<std::vector<bool>> FindFinished(const std::vector<steer::WaveParts>& waves) const {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json flags, context_.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
      BEARING_ASSIGN_OR_RETURN(const jobs::CompletionIndex index,
                               jobs::CompletionIndex::Read(index_files_.at("files").get<std::vector<std::string>>(), rows_));
      std::vector<bool> finished;
      for (const steer::WaveParts& wave : waves) {
        finished.push_back(std::all_of(wave.begin(), wave.end(), [&](const steer::WavePart& part) {
          for (size_t r = part.rows.begin; r < part.rows.end; ++r) {
            if (!index.Has(static_cast<int>(part.task), static_cast<int64_t>(r))) return false;
          }
          return true;
        }));
      }
      return nlohmann::json(finished);
    }));
    return flags.get<std::vector<bool>>();
  }

  bool HoldsStopText(absl::Span<const int32_t> tokens) {
    size_t longest = 0;
    for (const std::string& stop : context_.spec.evaluate().stop()) longest = std::max(longest, stop.size());
    const size_t count = std::min(tokens.size(), longest + kStopMargin);  // A token with text has a byte at least.
    const auto text = tokenizer_->Decode(tokens.subspan(tokens.size() - count), /*skip_special_tokens=*/true);
    sink_status_.Update(text.status());
    return text.ok() && jobs::FindFirst(*text, context_.spec.evaluate().stop()) != std::string_view::npos;
  }

  void Record(const steer::GeneratedRow& row) {
    auto text = tokenizer_->Decode(row.tokens, /*skip_special_tokens=*/true);
    sink_status_.Update(text.status());
    if (!text.ok()) return;
    jobs::CompletionRecord record;
    record.condition = static_cast<int>(row.task);
    record.row = static_cast<int64_t>(row.row);
    record.side = kConditions[row.task].side;
    record.intervention = kConditions[row.task].intervention;
    record.finish = FinishName(row.finish);
    record.tokens = static_cast<int64_t>(row.tokens.size());
    record.metric = row.metric;
    if (const size_t at = jobs::FindFirst(*text, context_.spec.evaluate().stop()); at != std::string_view::npos) {
      text->resize(at);
      record.finish = FinishName(steer::Finish::kStop);
    }
    record.response = *std::move(text);
    writer_->Add(record);
  }

  absl::Status RecordStatus() const {
    if (!sink_status_.ok()) return sink_status_;
    return writer_ == nullptr ? absl::OkStatus() : writer_->status();
  }

  JobContext& context_;
  steer::Replicas& replicas_;
  PromptRows positive_, negative_;
  std::vector<steer::GenerationTask> tasks_;
  std::vector<int64_t> rows_;  // Of each condition.
  int64_t all_ = 0;
  nlohmann::json identity_, index_files_;
  std::unique_ptr<bridge::ChatTokenizer> own_tokenizer_;
  // First ranks of replicas.
  const bridge::ChatTokenizer* tokenizer_ = nullptr;
  std::unique_ptr<jobs::CompletionWriter> writer_;
  absl::Status sink_status_;
};

}  // namespace

std::string CompletionsFile(int replica) { return absl::StrCat(kCompletionsFolder, "/completions-", replica, ".jsonl"); }

std::vector<std::string> CompletionsFiles(const JobContext& context) {
  std::vector<std::string> files;
  // A run may have gone on with fewer replicas than it began with.
  for (int replica = 0; replica < 1024; ++replica) {
    std::string file = CompletionsFile(replica);
    if (fs::exists(context.output->PathOf(file))) files.push_back(std::move(file));
  }
  return files;
}

absl::StatusOr<StageFiles> RunEvaluate(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(steer::Replicas * replicas, context.GetReplicas());
  return EvaluateStage(context, *replicas).Run();
}

}  // namespace bearing::worker
