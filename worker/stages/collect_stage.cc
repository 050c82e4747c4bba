#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "jobs/conversation_check.h"
#include "sharding/memory_rules.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"
#include "worker/stages/activation_dump.h"
#include "worker/stages/geometry.h"
#include "worker/stages/prompt_rows.h"
#include "worker/stages/stages.h"
#include "worker/steer/capture.h"
#include "worker/steer/concept_metric.h"

namespace bearing::worker {
namespace {

using bearing::v1::STAGE_COLLECT;

constexpr auto kTokenPrompts = static_cast<size_t>(sharding::kTokenPrompts);

// One side (positive or negative) of the training prompts on its way to a mean.
struct Side {
  std::string name;
  PromptRows train, validation;
  // Of the first prompts, kept until the metric's tokens are known.
  std::vector<steer::CapturedBatch> pending, pending_validation;
  at::Tensor probability_sum_V;                // This rank's columns, fp64; then all.
  at::Tensor metric_train, metric_validation;  // Of each prompt, fp64.
  steer::ResidualMean mean;
  steer::LastRows last_rows;
  std::vector<int> kept_train, kept_validation;
  double probability_of(int64_t id) const {
    return probability_sum_V[id].item<double>() / static_cast<double>(train.rows.size());
  }
};

bool Keep(bool filter, bool positive, double metric) { return !filter || (positive ? metric > 0 : metric < 0); }

class CollectStage {
 public:
  CollectStage(JobContext& context, steer::Replicas& replicas)
      : context_(context), replicas_(replicas), decoder_(replicas.decoder()) {}

  absl::StatusOr<StageFiles> Run() {
    BEARING_ASSIGN_OR_RETURN(post_, FindPostInstruction(context_));
    const bearing::v1::Prompts& prompts = context_.spec.prompts();
    BEARING_RETURN_IF_ERROR(Load(prompts.positive(), "positive", sides_[0]));
    BEARING_RETURN_IF_ERROR(Load(prompts.negative(), "negative", sides_[1]));
    for (Side& side : sides_) Prepare(side);
    BEARING_RETURN_IF_ERROR(ResolveTokens());
    if (context_.spec.collect().dump()) {
      BEARING_ASSIGN_OR_RETURN(dump_,
                               ActivationDump::Create(context_, sides_[0].train.rows.size(), sides_[1].train.rows.size()));
    }
    if (derived_) {
      BEARING_RETURN_IF_ERROR(Capture(0, kTokenPrompts));
      BEARING_RETURN_IF_ERROR(DeriveTokens());
      // Local to a replica until here.
      absl::Status taken;
      for (Side& side : sides_) taken.Update(TakePending(side));
      BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context_.comm, taken));
    }
    BEARING_RETURN_IF_ERROR(Capture(derived_ ? kTokenPrompts : 0, std::numeric_limits<size_t>::max()));
    for (Side& side : sides_) {
      BEARING_ASSIGN_OR_RETURN(side.probability_sum_V, SumOfAll(side.probability_sum_V));
      BEARING_RETURN_IF_ERROR(KeepPrompts(side));
    }
    return Write();
  }

 private:
  size_t MaxRows() const {
    const int wanted = context_.spec.collect().max_batch();
    return wanted > 0 ? static_cast<size_t>(wanted) : std::numeric_limits<size_t>::max();
  }

  absl::Status Load(const bearing::v1::PromptSide& source, const std::string& name, Side& side) {
    side.name = name;
    BEARING_ASSIGN_OR_RETURN(side.train, LoadPromptRows(context_, source.train()));
    BEARING_ASSIGN_OR_RETURN(side.validation, LoadPromptRows(context_, source.validation()));
    // The texts are not needed again, and there may be many.
    side.train.prompts = {};
    side.validation.prompts = {};
    BEARING_RETURN_IF_ERROR(CheckEndings(side.train.rows, post_, name + " train"));
    return CheckEndings(side.validation.rows, post_, name + " validation");
  }

  bool filter() const { return context_.spec.collect().filter(); }

  void Prepare(Side& side) {
    const auto zeros = [](size_t n) { return at::zeros({static_cast<int64_t>(n)}, at::kDouble); };
    side.metric_train = zeros(side.train.rows.size());
    side.metric_validation = zeros(side.validation.rows.size());
    side.probability_sum_V = zeros(decoder_.local_vocab().size()).to(decoder_.device());
    const sharding::ModelConfig& config = decoder_.config();
    side.mean = steer::ResidualMean(config.num_layers(), static_cast<int64_t>(post_.ids.size()), config.d_model);
    side.last_rows = steer::LastRows(kGeometryPrompts, /*among_first=*/!filter());
    total_ += static_cast<int64_t>(side.train.rows.size() + (filter() ? side.validation.rows.size() : 0));
  }

  // Token ids of the job file, or of its texts; none = to be derived.
  absl::Status ResolveTokens() {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json ids, context_.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
      BEARING_ASSIGN_OR_RETURN(
          const std::vector<int32_t> resolved,
          jobs::ConceptTokens(context_.spec.concept_spec(), *context_.tokenizer, decoder_.config().vocab_size));
      return nlohmann::json(resolved);
    }));
    tokens_ = ids.get<std::vector<int32_t>>();
    derived_ = tokens_.empty();
    return absl::OkStatus();
  }

  // Prompts [begin, end) of every set that the model runs for this stage, at once: streamed weights are then read once. Usually
  // all prompts are among the first, which tell the tokens.
  absl::Status Capture(size_t begin, size_t end) {
    std::vector<steer::CaptureTask> tasks;
    double prompts = 0;
    const auto add = [&](const steer::Rows& rows, int positions,
                         std::function<absl::Status(const steer::CapturedBatch&)> sink) {
      const steer::RowRange part{std::min(begin, rows.size()), std::min(end, rows.size())};
      if (part.size() == 0) return;
      prompts += static_cast<double>(part.size());
      tasks.push_back({&rows, positions, part, std::move(sink)});
    };
    for (Side& side : sides_) {
      add(side.train.rows, static_cast<int>(post_.ids.size()),
          [this, &side](const steer::CapturedBatch& batch) { return TakeTrain(side, batch); });
      if (!filter()) continue;
      add(side.validation.rows, /*positions=*/0,
          [this, &side](const steer::CapturedBatch& batch) { return TakeValidation(side, batch); });
    }
    const double before = done_;
    done_ += prompts;
    const auto progress = [&](double share) {
      const double of_all = (before + share * prompts) / static_cast<double>(total_);
      return context_.StepInReplica(STAGE_COLLECT, of_all, total_, "prompts");
    };
    return steer::CaptureResiduals(replicas_, tasks, context_.token_budget, MaxRows(), progress);
  }

  absl::Status TakeTrain(Side& side, const steer::CapturedBatch& batch) {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor p, steer::LocalProbabilities(decoder_, batch.last_ND));
    side.probability_sum_V.add_(at::sum(p, 0, false, at::kDouble));
    if (dump_.has_value()) {
      BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(decoder_.comm(), dump_->Add(side.name, batch)));
    }
    if (!tokens_.empty()) return AddToMean(side, batch, p);
    side.pending.push_back(batch);
    return absl::OkStatus();
  }

  absl::Status TakeValidation(Side& side, const steer::CapturedBatch& batch) {
    if (!tokens_.empty()) return MeasureValidation(side, batch);
    side.pending_validation.push_back(batch);
    return absl::OkStatus();
  }

  // What waited for the metric's tokens.
  absl::Status TakePending(Side& side) {
    for (const steer::CapturedBatch& batch : side.pending) {
      BEARING_ASSIGN_OR_RETURN(const at::Tensor p, steer::LocalProbabilities(decoder_, batch.last_ND));
      BEARING_RETURN_IF_ERROR(AddToMean(side, batch, p));
    }
    side.pending.clear();
    for (const steer::CapturedBatch& batch : side.pending_validation) BEARING_RETURN_IF_ERROR(MeasureValidation(side, batch));
    side.pending_validation.clear();
    return absl::OkStatus();
  }

  // This rank's columns [V of this rank] -> the sum over all replicas, whole [V].
  absl::StatusOr<at::Tensor> SumOfAll(const at::Tensor& local_V) {
    at::Tensor sum = local_V.clone();
    BEARING_RETURN_IF_ERROR(replicas_.Sum(sum));
    return decoder_.comm().AllGather(sum);
  }

  // From the probabilities of the first prompts, which have been run.
  absl::Status DeriveTokens() {
    at::Tensor means[2];
    for (size_t s = 0; s < 2; ++s) {
      BEARING_ASSIGN_OR_RETURN(means[s], SumOfAll(sides_[s].probability_sum_V));
      means[s].div_(static_cast<double>(std::min(sides_[s].train.rows.size(), kTokenPrompts)));
    }
    for (const steer::DerivedToken& token : steer::DeriveConceptTokens(means[0], means[1])) tokens_.push_back(token.id);
    if (tokens_.empty()) {
      return absl::FailedPreconditionError(
          "no token is said first on positive prompts and not on negative ones, so the concept has no first-token metric: name "
          "its tokens in concept.tokens, or use prompts that the model answers differently");
    }
    return absl::OkStatus();
  }

  absl::Status AddToMean(Side& side, const steer::CapturedBatch& batch, const at::Tensor& p) {
    BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, steer::ConceptMetric(decoder_, p, tokens_));
    std::vector<bool> keep(metric.size());
    for (size_t i = 0; i < metric.size(); ++i) {
      keep[i] = Keep(filter(), &side == &sides_[0], metric[i]);
      side.metric_train[static_cast<int64_t>(batch.range.begin + i)] = metric[i];
    }
    side.mean.Add(batch, keep);
    side.last_rows.Add(batch, keep);
    return absl::OkStatus();
  }

  absl::Status MeasureValidation(Side& side, const steer::CapturedBatch& batch) {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor p, steer::LocalProbabilities(decoder_, batch.last_ND));
    BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, steer::ConceptMetric(decoder_, p, tokens_));
    for (size_t i = 0; i < metric.size(); ++i) {
      side.metric_validation[static_cast<int64_t>(batch.range.begin + i)] = metric[i];
    }
    return absl::OkStatus();
  }

  // Which prompts pass the filter, from the metrics of all replicas.
  absl::Status KeepPrompts(Side& side) {
    BEARING_RETURN_IF_ERROR(replicas_.Sum(side.metric_train));
    BEARING_RETURN_IF_ERROR(replicas_.Sum(side.metric_validation));
    const auto kept = [&](const at::Tensor& metric) {
      std::vector<int> which;
      for (int64_t i = 0; i < metric.size(0); ++i) {
        if (Keep(filter(), &side == &sides_[0], metric.const_data_ptr<double>()[i])) which.push_back(static_cast<int>(i));
      }
      return which;
    };
    side.kept_train = kept(side.metric_train);
    side.kept_validation = kept(side.metric_validation);
    return absl::OkStatus();
  }

  absl::StatusOr<StageFiles> Write() {
    for (const Side& side : sides_) {
      const bool positive = &side == &sides_[0];
      for (const bool train : {true, false}) {
        const size_t kept = train ? side.kept_train.size() : side.kept_validation.size();
        const size_t all = train ? side.train.rows.size() : side.validation.rows.size();
        if (kept > 0) continue;
        return absl::FailedPreconditionError(absl::StrCat(
            "the filter left no prompt: set=", side.name, train ? " train" : " validation", " given=", all,
            positive ? " (kept are those with metric > 0: the model shows the concept)" : " (kept are those with metric < 0)",
            "; use prompts the model answers more clearly, name concept.tokens, or set collect.filter: false"));
      }
    }
    BEARING_ASSIGN_OR_RETURN(const at::Tensor positive, sides_[0].mean.Mean(replicas_));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor negative, sides_[1].mean.Mean(replicas_));
    const at::Tensor difference = positive - negative;
    BEARING_RETURN_IF_ERROR(context_.OnRank0([&]() -> absl::Status {
      const std::vector<int64_t> shape = difference.sizes().vec();
      const auto tensor = [&](const char* name, const at::Tensor& t) {
        return sharding::SafetensorsTensor{name, sharding::DType::kF64, shape, t.const_data_ptr<double>()};
      };
      BEARING_RETURN_IF_ERROR(sharding::WriteSafetensors(
          context_.output->PathOf("means.safetensors"),
          {tensor("positive_mean", positive), tensor("negative_mean", negative), tensor("mean_difference", difference)},
          {{"axes", "position, layer, d_model"}, {"model_digest", context_.model_digest}}));
      BEARING_ASSIGN_OR_RETURN(const nlohmann::json summary, Summary());
      return jobs::WriteFileAtomically(context_.output->PathOf("collect.json"), summary.dump(1) + "\n");
    }));
    BEARING_RETURN_IF_ERROR(WriteGeometry(context_, {&sides_[0].last_rows, &sides_[0].kept_train},
                                          {&sides_[1].last_rows, &sides_[1].kept_train}, difference));
    StageFiles files = {"collect.json", "means.safetensors", "geometry.json"};
    if (dump_.has_value()) {
      BEARING_RETURN_IF_ERROR(dump_->Finish(context_));
      files.push_back(ActivationDump::kFileName);
    }
    return files;
  }

  absl::StatusOr<nlohmann::json> Summary() const {
    nlohmann::json tokens = nlohmann::json::array();
    for (const int32_t id : tokens_) {
      BEARING_ASSIGN_OR_RETURN(const std::string text, context_.tokenizer->TokenText(id));
      tokens.push_back({{"id", id},
                        {"text", text},
                        {"positive_probability", sides_[0].probability_of(id)},
                        {"negative_probability", sides_[1].probability_of(id)}});
    }
    nlohmann::json sets = nlohmann::json::object();
    for (const Side& side : sides_) {
      sets[side.name + " train"] = {{"given", side.train.rows.size()}, {"kept", side.kept_train}};
      sets[side.name + " validation"] = {{"given", side.validation.rows.size()}, {"kept", side.kept_validation}};
    }
    return nlohmann::json{{"metric_tokens", tokens},
                          {"metric_tokens_derived", derived_},
                          {"post_instruction_ids", post_.ids},
                          {"post_instruction_tokens", post_.texts},
                          {"prompt_sets", sets}};
  }

  JobContext& context_;
  steer::Replicas& replicas_;
  model::Decoder& decoder_;
  PostInstruction post_;
  Side sides_[2];
  std::vector<int32_t> tokens_;
  bool derived_ = false;
  int64_t total_ = 0;
  double done_ = 0;  // Prompts that were captured.
  std::optional<ActivationDump> dump_;
};

}  // namespace

absl::StatusOr<StageFiles> RunCollect(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(steer::Replicas * replicas, context.GetReplicas());
  return CollectStage(context, *replicas).Run();
}

}  // namespace bearing::worker
