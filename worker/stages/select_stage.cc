#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "jobs/selection.h"
#include "sharding/status_macros.h"
#include "worker/model/tensor_file.h"
#include "worker/stages/edit_spec_of.h"
#include "worker/stages/prompt_rows.h"
#include "worker/stages/stages.h"
#include "worker/steer/candidate_scores.h"
#include "worker/steer/direction_file.h"

namespace bearing::worker {
namespace {

using bearing::v1::STAGE_SELECT;
using jobs::Candidate;

steer::Rows Pick(const steer::Rows& rows, const std::vector<int>& kept) {
  steer::Rows picked;
  for (const int i : kept) picked.push_back(rows.at(i));
  return picked;
}

class SelectStage {
 public:
  SelectStage(JobContext& context, steer::Replicas& replicas)
      : context_(context), replicas_(replicas), decoder_(replicas.decoder()) {}

  absl::StatusOr<StageFiles> Run() {
    BEARING_RETURN_IF_ERROR(LoadInputs());
    steer::CandidateScorer scorer(replicas_, positive_, negative_, tokens_, context_.token_budget);
    const auto prompts = static_cast<int64_t>(positive_.size() + negative_.size());
    BEARING_RETURN_IF_ERROR(scorer.RunBaseline(
        [&](double share) { return context_.StepInReplica(STAGE_SELECT, share, prompts, "prompts, baseline"); }));
    MakeCandidates();

    const bearing::v1::Select& settings = context_.spec.select();
    jobs::SelectionRule rule;
    rule.kl_max = settings.kl_max();
    rule.induce_min = settings.induce_min();
    rule.prune_layers = settings.prune_layers();
    rule.num_layers = decoder_.config().num_layers();
    BEARING_RETURN_IF_ERROR(Score(scorer, rule));
    jobs::Selection selection = jobs::Select(candidates_, rule);

    // Only where the job file asks for it, one threshold is relaxed step by step; what was done is recorded.
    std::vector<std::string> relaxations;
    const std::string& none_passes = settings.when_none_passes();
    for (int step = 0; !selection.selected.has_value() && step < 40; ++step) {
      if (none_passes == "relax_kl") {
        rule.kl_max *= 1.25;
        relaxations.push_back(absl::StrFormat("kl_max raised to %.4g", rule.kl_max));
      } else if (none_passes == "relax_induce") {
        rule.induce_min -= 0.25;
        relaxations.push_back(absl::StrFormat("induce_min lowered to %.4g", rule.induce_min));
      } else {
        break;
      }
      BEARING_RETURN_IF_ERROR(Score(scorer, rule));
      selection = jobs::Select(candidates_, rule);
    }
    if (!selection.selected.has_value()) {
      return absl::FailedPreconditionError(jobs::ExplainNoneSelected(candidates_, rule));
    }
    return Write(scorer, rule, selection, relaxations);
  }

 private:
  absl::Status LoadInputs() {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json collect,
                             context_.FromRank0([&] { return ReadJsonArtifact(context_, "collect.json"); }));
    for (const nlohmann::json& token : collect.at("metric_tokens")) tokens_.push_back(token.at("id").get<int32_t>());
    num_positions_ = static_cast<int>(collect.at("post_instruction_ids").size());
    const nlohmann::json& sets = collect.at("prompt_sets");
    const bearing::v1::Prompts& prompts = context_.spec.prompts();
    BEARING_ASSIGN_OR_RETURN(const PromptRows positive, LoadPromptRows(context_, prompts.positive().validation()));
    BEARING_ASSIGN_OR_RETURN(const PromptRows negative, LoadPromptRows(context_, prompts.negative().validation()));
    positive_ = Pick(positive.rows, sets.at("positive validation").at("kept").get<std::vector<int>>());
    negative_ = Pick(negative.rows, sets.at("negative validation").at("kept").get<std::vector<int>>());
    return LoadMeanDifference();
  }

  absl::Status LoadMeanDifference() {
    const int64_t num_layers = decoder_.config().num_layers();
    difference_PLD_ = at::empty({num_positions_, num_layers, decoder_.config().d_model}, at::kDouble);
    BEARING_RETURN_IF_ERROR(context_.OnRank0([&]() -> absl::Status {
      const std::string path = context_.output->PathOf("means.safetensors");
      BEARING_ASSIGN_OR_RETURN(const at::Tensor stored, model::ReadTensor(path, "mean_difference"));
      if (stored.sizes() != difference_PLD_.sizes() || stored.scalar_type() != at::kDouble) {
        return absl::DataLossError(absl::StrCat("mean_difference is of another shape or type: file=", path));
      }
      difference_PLD_.copy_(stored);
      return absl::OkStatus();
    }));
    return context_.comm->Broadcast(difference_PLD_, 0);
  }

  void MakeCandidates() {
    const bearing::v1::Select& settings = context_.spec.select();
    candidates_ = jobs::CandidateGrid(num_positions_, static_cast<int>(decoder_.config().num_layers()),
                                      {settings.positions().begin(), settings.positions().end()},
                                      {settings.layers().begin(), settings.layers().end()});
    const double largest = at::amax(at::norm(difference_PLD_, 2, {2}), {0, 1}).item<double>();
    for (Candidate& candidate : candidates_) {
      const at::Tensor raw = difference_PLD_[num_positions_ + candidate.position][candidate.layer];
      candidate.norm = at::norm(raw).item<double>();
      if (candidate.norm <= jobs::kZeroNormShare * largest) candidate.norm = 0;
      steer::CandidateVector vector;
      vector.layer = candidate.layer;
      vector.mean_difference = raw.to(at::kFloat).contiguous();
      if (candidate.norm > 0) vector.direction = (raw / candidate.norm).to(at::kFloat).contiguous();
      vectors_.push_back(std::move(vector));
    }
  }

  // Runs one test for the candidates that `wanted` picks and that have no result yet.
  using Test = steer::CandidateScorer::Scores (steer::CandidateScorer::*)(absl::Span<const steer::CandidateVector>,
                                                                          const steer::Replicas::Progress&);
  absl::Status RunTest(steer::CandidateScorer& scorer, Test test, std::optional<double> Candidate::*field, const char* name,
                       const std::function<bool(const Candidate&)>& wanted) {
    std::vector<size_t> which;
    std::vector<steer::CandidateVector> vectors;
    for (size_t c = 0; c < candidates_.size(); ++c) {
      if (candidates_[c].norm == 0 || (candidates_[c].*field).has_value() || !wanted(candidates_[c])) continue;
      which.push_back(c);
      vectors.push_back(vectors_[c]);
    }
    const std::string unit = absl::StrCat("candidates, ", name);
    BEARING_ASSIGN_OR_RETURN(const std::vector<double> scores, (scorer.*test)(vectors, [&](double share) {
                               return context_.StepInReplica(STAGE_SELECT, share, static_cast<int64_t>(which.size()), unit);
                             }));
    for (size_t i = 0; i < which.size(); ++i) candidates_[which[i]].*field = scores[i];
    return absl::OkStatus();
  }

  // Brings every candidate as far as the rule needs. Cheap tests first: induce, then KL, then bypass, each only for those that
  // passed the ones before; with `complete`, everything for all.
  absl::Status Score(steer::CandidateScorer& scorer, const jobs::SelectionRule& rule) {
    const bool complete = context_.spec.select().complete();
    const auto in_layers = [&](const Candidate& c) { return complete || c.layer < rule.first_pruned_layer(); };
    const auto induces = [&](const Candidate& c) { return complete || (c.induce.has_value() && *c.induce >= rule.induce_min); };
    const auto is_close = [&](const Candidate& c) { return complete || (c.kl.has_value() && *c.kl <= rule.kl_max); };
    BEARING_RETURN_IF_ERROR(RunTest(scorer, &steer::CandidateScorer::ScoreInduce, &Candidate::induce, "induce", in_layers));
    BEARING_RETURN_IF_ERROR(RunTest(scorer, &steer::CandidateScorer::ScoreKl, &Candidate::kl, "KL",
                                    [&](const Candidate& c) { return in_layers(c) && induces(c); }));
    return RunTest(scorer, &steer::CandidateScorer::ScoreBypass, &Candidate::bypass, "bypass",
                   [&](const Candidate& c) { return in_layers(c) && induces(c) && is_close(c); });
  }

  absl::StatusOr<StageFiles> Write(const steer::CandidateScorer& scorer, const jobs::SelectionRule& rule,
                                   const jobs::Selection& selection, const std::vector<std::string>& relaxations) {
    const size_t chosen = *selection.selected;
    BEARING_RETURN_IF_ERROR(context_.OnRank0([&]() -> absl::Status {
      nlohmann::json rows = nlohmann::json::array();
      const auto value = [](const std::optional<double>& v) {
        return v.has_value() && std::isfinite(*v) ? nlohmann::json(*v) : nlohmann::json();
      };
      for (const Candidate& c : candidates_) {
        rows.push_back({{"position", c.position},
                        {"layer", c.layer},
                        {"norm", c.norm},
                        {"induce", value(c.induce)},
                        {"kl", value(c.kl)},
                        {"bypass", value(c.bypass)},
                        {"discard", jobs::DiscardName(jobs::Classify(c, rule))}});
      }
      const nlohmann::json document = {
          {"num_layers", rule.num_layers},
          {"num_positions", num_positions_},
          {"d_model", decoder_.config().d_model},
          {"rule", {{"kl_max", rule.kl_max}, {"induce_min", rule.induce_min}, {"prune_layers", rule.prune_layers}}},
          {"complete", context_.spec.select().complete()},
          {"relaxations", relaxations},
          {"metric_token_ids", tokens_},
          {"positive_metric", scorer.positive_metric()},
          {"negative_metric", scorer.negative_metric()},
          {"prompts", {{"positive", positive_.size()}, {"negative", negative_.size()}}},
          {"selected", chosen},
          {"considered", selection.considered},
          {"kept", selection.kept},
          {"discarded", selection.discarded},
          {"candidates", rows}};
      BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(context_.output->PathOf("candidates.json"), document.dump(1) + "\n"));
      const Candidate& c = candidates_[chosen];
      steer::Direction direction;
      direction.unit = vectors_[chosen].direction;
      direction.mean_difference = vectors_[chosen].mean_difference;
      direction.metadata = {{"concept", context_.spec.concept_spec().name()}, {"layer", absl::StrCat(c.layer)},
                            {"position", absl::StrCat(c.position)},           {"bypass", absl::StrFormat("%.9g", *c.bypass)},
                            {"induce", absl::StrFormat("%.9g", *c.induce)},   {"kl", absl::StrFormat("%.9g", *c.kl)},
                            {"model_digest", context_.model_digest}};
      return steer::WriteDirection(context_.output->PathOf("direction.safetensors"), direction);
    }));
    return StageFiles{"candidates.json", "direction.safetensors"};
  }

  JobContext& context_;
  steer::Replicas& replicas_;
  model::Decoder& decoder_;
  std::vector<int32_t> tokens_;
  int num_positions_ = 0;
  steer::Rows positive_, negative_;
  at::Tensor difference_PLD_;
  std::vector<Candidate> candidates_;
  std::vector<steer::CandidateVector> vectors_;
};

}  // namespace

absl::StatusOr<StageFiles> RunSelect(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(steer::Replicas * replicas, context.GetReplicas());
  BEARING_ASSIGN_OR_RETURN(const StageFiles files, SelectStage(context, *replicas).Run());
  BEARING_RETURN_IF_ERROR(CheckChosenLayer(context));
  return files;
}

}  // namespace bearing::worker
