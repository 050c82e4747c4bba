#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "jobs/conversation_check.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"
#include "worker/stages/prompt_rows.h"
#include "worker/stages/stages.h"
#include "worker/steer/capture.h"
#include "worker/steer/concept_metric.h"

namespace bearing::worker {
namespace {

using bearing::v1::STAGE_COLLECT;

// One side (positive or negative) of the training prompts on its way to a mean.
struct Side {
  std::string name;
  PromptRows train, validation;
  std::vector<steer::CapturedBatch> pending, pending_validation;  // Kept until the metric's tokens are known.
  at::Tensor probability_sum_V;                                   // This rank's columns, fp64.
  steer::ResidualMean mean;
  std::vector<int> kept_train, kept_validation;
  double probability_of(int64_t id) const {
    return probability_sum_V[id].item<double>() / static_cast<double>(train.rows.size());
  }
};

bool Keep(bool filter, bool positive, double metric) { return !filter || (positive ? metric > 0 : metric < 0); }

class CollectStage {
 public:
  CollectStage(JobContext& context, model::Decoder& decoder) : context_(context), decoder_(decoder) {}

  absl::StatusOr<StageFiles> Run() {
    BEARING_ASSIGN_OR_RETURN(post_, FindPostInstruction(context_));
    const bearing::v1::Prompts& prompts = context_.spec.prompts();
    BEARING_RETURN_IF_ERROR(Load(prompts.positive(), "positive", sides_[0]));
    BEARING_RETURN_IF_ERROR(Load(prompts.negative(), "negative", sides_[1]));
    const bool filter = context_.spec.collect().filter();
    for (const Side& side : sides_) {
      total_ += static_cast<int64_t>(side.train.rows.size() + (filter ? side.validation.rows.size() : 0));
    }
    BEARING_RETURN_IF_ERROR(ResolveTokens());
    BEARING_RETURN_IF_ERROR(Capture());
    BEARING_RETURN_IF_ERROR(DeriveTokens());
    for (Side& side : sides_) BEARING_RETURN_IF_ERROR(TakePending(side));
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
    BEARING_RETURN_IF_ERROR(CheckEndings(side.train.rows, post_, name + " train"));
    return CheckEndings(side.validation.rows, post_, name + " validation");
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

  // Everything that the model runs for this stage, at once: streamed weights are then read once.
  absl::Status Capture() {
    const bool filter = context_.spec.collect().filter();
    std::vector<steer::CaptureTask> tasks;
    for (Side& side : sides_) {
      tasks.push_back({&side.train.rows, static_cast<int>(post_.ids.size()),
                       [this, &side](const steer::CapturedBatch& batch) { return TakeTrain(side, batch); }});
      if (!filter) {
        side.kept_validation.resize(side.validation.rows.size());
        std::iota(side.kept_validation.begin(), side.kept_validation.end(), 0);
        continue;
      }
      tasks.push_back({&side.validation.rows, /*num_positions=*/0,
                       [this, &side](const steer::CapturedBatch& batch) { return TakeValidation(side, batch); }});
    }
    return steer::CaptureResiduals(decoder_, tasks, context_.token_budget, MaxRows());
  }

  absl::Status TakeTrain(Side& side, const steer::CapturedBatch& batch) {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor p, steer::LocalProbabilities(decoder_, batch.last_ND));
    const at::Tensor sum = at::sum(p, 0, false, at::kDouble);
    side.probability_sum_V = side.probability_sum_V.defined() ? side.probability_sum_V + sum : sum;
    if (derived_) {
      side.pending.push_back(batch);
    } else {
      BEARING_RETURN_IF_ERROR(AddToMean(side, batch, p));
    }
    done_ += static_cast<int64_t>(batch.range.size());
    return context_.Step(STAGE_COLLECT, done_, total_, "prompts", side.name + " train");
  }

  absl::Status TakeValidation(Side& side, const steer::CapturedBatch& batch) {
    if (derived_) {
      side.pending_validation.push_back(batch);
    } else {
      BEARING_RETURN_IF_ERROR(FilterValidation(side, batch));
    }
    done_ += static_cast<int64_t>(batch.range.size());
    return context_.Step(STAGE_COLLECT, done_, total_, "prompts", side.name + " validation");
  }

  // What waited for the metric's tokens.
  absl::Status TakePending(Side& side) {
    for (const steer::CapturedBatch& batch : side.pending) {
      BEARING_ASSIGN_OR_RETURN(const at::Tensor p, steer::LocalProbabilities(decoder_, batch.last_ND));
      BEARING_RETURN_IF_ERROR(AddToMean(side, batch, p));
    }
    side.pending.clear();
    for (const steer::CapturedBatch& batch : side.pending_validation) BEARING_RETURN_IF_ERROR(FilterValidation(side, batch));
    side.pending_validation.clear();
    return absl::OkStatus();
  }

  absl::Status DeriveTokens() {
    for (Side& side : sides_) {
      BEARING_ASSIGN_OR_RETURN(side.probability_sum_V, decoder_.comm().AllGather(side.probability_sum_V.contiguous()));
    }
    if (!derived_) return absl::OkStatus();
    const auto n = [](const Side& side) { return static_cast<double>(side.train.rows.size()); };
    for (const steer::DerivedToken& token :
         steer::DeriveConceptTokens(sides_[0].probability_sum_V / n(sides_[0]), sides_[1].probability_sum_V / n(sides_[1]))) {
      tokens_.push_back(token.id);
    }
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
      keep[i] = Keep(context_.spec.collect().filter(), &side == &sides_[0], metric[i]);
      if (keep[i]) side.kept_train.push_back(static_cast<int>(batch.range.begin + i));
    }
    side.mean.Add(batch, keep);
    return absl::OkStatus();
  }

  absl::Status FilterValidation(Side& side, const steer::CapturedBatch& batch) {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor p, steer::LocalProbabilities(decoder_, batch.last_ND));
    BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, steer::ConceptMetric(decoder_, p, tokens_));
    for (size_t i = 0; i < metric.size(); ++i) {
      if (Keep(/*filter=*/true, &side == &sides_[0], metric[i])) {
        side.kept_validation.push_back(static_cast<int>(batch.range.begin + i));
      }
    }
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
    BEARING_ASSIGN_OR_RETURN(const at::Tensor positive, sides_[0].mean.Mean(decoder_.comm()));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor negative, sides_[1].mean.Mean(decoder_.comm()));
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
    return StageFiles{"collect.json", "means.safetensors"};
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
  model::Decoder& decoder_;
  PostInstruction post_;
  Side sides_[2];
  std::vector<int32_t> tokens_;
  bool derived_ = false;
  int64_t done_ = 0;
  int64_t total_ = 0;
};

}  // namespace

absl::StatusOr<StageFiles> RunCollect(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(model::Decoder * decoder, context.GetDecoder());
  return CollectStage(context, *decoder).Run();
}

}  // namespace bearing::worker
