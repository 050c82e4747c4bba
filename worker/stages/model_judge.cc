#include "worker/stages/model_judge.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "sharding/memory_rules.h"
#include "sharding/status_macros.h"
#include "worker/stages/prompt_rows.h"
#include "worker/steer/concept_metric.h"

namespace bearing::worker {
namespace {

// Completions that are read, run and recorded together.
constexpr int64_t kTogether = sharding::kJudgeRows;
constexpr double kNotJudged = std::numeric_limits<double>::quiet_NaN();

// A judge's model on all ranks, cut like the job's.
class JudgeEngine {
 public:
  JudgeEngine(JobContext& context, const bearing::v1::JudgeModel& model, const sharding::CheckpointReader& reader)
      : context_(context), model_(model), reader_(reader) {}

  absl::Status Load() {
    auto plan = sharding::MakeShardPlan(reader_.config(), reader_.layout(), context_.grid.tensor_parallel->size());
    BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context_.comm, plan.status()));
    model::DecoderOptions options;
    options.dtype = ComputeType(model_.dtype());
    BEARING_ASSIGN_OR_RETURN(options.residency, context_.ChooseResidency(reader_, *plan, options.dtype, model_.residency()));
    BEARING_ASSIGN_OR_RETURN(sizes_, context_.MeasurePassSizes(reader_.config()));
    options.stream_tokens = sizes_.stream_tokens;
    BEARING_ASSIGN_OR_RETURN(decoder_, model::Decoder::Load(reader_, *plan, *context_.grid.tensor_parallel, options));
    BEARING_ASSIGN_OR_RETURN(replicas_, steer::Replicas::Make(*decoder_, context_.grid));
    return absl::OkStatus();
  }

  // [rows, 2]: probabilities of the yes and the no tokens behind each row, on every rank; a row of no tokens gets NaN.
  absl::StatusOr<at::Tensor> Score(const steer::Rows& rows, absl::Span<const int32_t> yes, absl::Span<const int32_t> no,
                                   const steer::Replicas::Progress& progress) {
    at::Tensor scores = at::zeros({static_cast<int64_t>(rows.size()), 2}, at::kDouble);
    steer::Rows judged;
    std::vector<int64_t> index;  // In `rows`.
    for (size_t r = 0; r < rows.size(); ++r) {
      if (rows[r].empty()) continue;
      judged.push_back(rows[r]);
      index.push_back(static_cast<int64_t>(r));
    }
    std::vector<model::Pass> passes;
    if (!judged.empty()) {
      const steer::RowBatcher batcher(decoder_->config(), judged, /*keep=*/1);
      for (const steer::RowRange range : batcher.Cut(sizes_.token_budget)) {
        model::Pass& pass = passes.emplace_back();
        std::vector<int> segments;
        batcher.AppendGroup(range, {}, pass.batch, segments, pass.read);
        pass.done = [&, range](const at::Tensor& x_ND) -> absl::Status {
          BEARING_ASSIGN_OR_RETURN(const at::Tensor p, steer::LocalProbabilities(*decoder_, x_ND));
          BEARING_ASSIGN_OR_RETURN(const std::vector<double> of_yes, steer::TokenProbabilities(*decoder_, p, yes));
          BEARING_ASSIGN_OR_RETURN(const std::vector<double> of_no, steer::TokenProbabilities(*decoder_, p, no));
          for (size_t i = 0; i < range.size(); ++i) {
            scores[index[range.begin + i]][0] = of_yes[i];
            scores[index[range.begin + i]][1] = of_no[i];
          }
          return absl::OkStatus();
        };
      }
      BEARING_RETURN_IF_ERROR(replicas_->Run(absl::MakeSpan(passes), steer::Handout::kDrawn, progress));
      BEARING_RETURN_IF_ERROR(replicas_->Sum(scores));
    }
    for (size_t r = 0; r < rows.size(); ++r) {
      if (rows[r].empty()) scores[static_cast<int64_t>(r)].fill_(kNotJudged);
    }
    return scores;
  }

 private:
  JobContext& context_;
  const bearing::v1::JudgeModel& model_;
  const sharding::CheckpointReader& reader_;
  JobContext::PassSizes sizes_;
  std::unique_ptr<model::Decoder> decoder_;
  std::unique_ptr<steer::Replicas> replicas_;
};

// What the judge reads of completions `begin` to `end`; of one that its context does not hold, nothing. Rank 0.
absl::StatusOr<steer::Rows> ReadRows(const JudgeModelJob& job, const jobs::JudgePrompt& prompt, int64_t context_length,
                                     int64_t begin, int64_t end) {
  std::vector<jobs::Exchange> exchanges;
  for (int64_t i = begin; i < end; ++i) {
    BEARING_ASSIGN_OR_RETURN(jobs::Exchange exchange, job.exchange(i));
    exchanges.push_back(std::move(exchange));
  }
  BEARING_ASSIGN_OR_RETURN(steer::Rows rows, prompt.Encode(exchanges));
  for (std::vector<int32_t>& row : rows) {
    if (context_length > 0 && static_cast<int64_t>(row.size()) > context_length) row.clear();
  }
  return rows;
}

// The mean probability that the verdict is one of the two: near 0, the prompt is not the one the judge knows. Rank 0.
absl::StatusOr<nlohmann::json> Facts(const JudgeModelJob& job, const std::string& digest, const jobs::JudgePrompt& prompt,
                                     const JudgeScores& scores) {
  double mass = 0;
  int64_t judged = 0;
  for (int64_t i = 0; i < job.completions; ++i) {
    BEARING_ASSIGN_OR_RETURN(const JudgeScore score, scores.Get(i));
    if (std::isnan(score.yes)) continue;
    mass += score.yes + score.no;
    ++judged;
  }
  const bearing::v1::JudgeModel& model = job.judge->model();
  return nlohmann::json{
      {"name", std::filesystem::path(model.path()).filename().string()},
      {"digest", digest},
      {"preset", model.preset()},
      {"format", model.format()},
      {"says_yes", std::vector<std::string>(model.says_yes().begin(), model.says_yes().end())},
      {"says_no", std::vector<std::string>(model.says_no().begin(), model.says_no().end())},
      {"yes_token_ids", prompt.yes_ids()},
      {"no_token_ids", prompt.no_ids()},
      {"mean_verdict_probability", judged > 0 ? nlohmann::json(mass / static_cast<double>(judged)) : nlohmann::json(nullptr)}};
}

}  // namespace

absl::StatusOr<nlohmann::json> RunModelJudge(JobContext& context, const JudgeModelJob& job) {
  const bearing::v1::JudgeModel& model = job.judge->model();
  const auto source = storage::ModelSource::Open(model.path(), model.chat_template());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, source.status()));
  const auto reader = (*source)->OpenCheckpoint();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, reader.status()));
  // Rank 0's.
  std::unique_ptr<jobs::JudgePrompt> prompt;
  std::unique_ptr<JudgeScores> scores;
  std::string digest;
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json begun, context.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
    BEARING_ASSIGN_OR_RETURN(prompt, jobs::JudgePrompt::Open(model, **source));
    BEARING_ASSIGN_OR_RETURN(digest, (*reader)->Digest());
    const nlohmann::json identity = {{"format", "bearing-judge/1"},
                                     {"judge", job.judge->DebugString()},
                                     {"prompt", prompt->text()},
                                     {"model_digest", digest},
                                     {"subject", job.subject}};
    BEARING_ASSIGN_OR_RETURN(JudgeScores opened, JudgeScores::Open(job.path, identity));
    scores = std::make_unique<JudgeScores>(std::move(opened));
    return nlohmann::json{{"count", scores->count()}, {"yes", prompt->yes_ids()}, {"no", prompt->no_ids()}};
  }));
  const auto yes = begun.at("yes").get<std::vector<int32_t>>(), no = begun.at("no").get<std::vector<int32_t>>();
  // Whole parts: rows that are run together give the same bits again.
  int64_t done = begun.at("count").get<int64_t>();
  if (done < job.completions) done -= done % kTogether;
  JudgeEngine engine(context, model, **reader);
  if (done < job.completions) {
    context.DropDecoder();  // Two models need not fit at once.
    BEARING_RETURN_IF_ERROR(engine.Load());
    BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return scores->Truncate(done); }));
  }
  for (; done < job.completions; done = std::min(done + kTogether, job.completions)) {
    const int64_t end = std::min(done + kTogether, job.completions);
    BEARING_ASSIGN_OR_RETURN(const steer::Rows rows, ShareRows(context, [&] {
                               return ReadRows(job, *prompt, (*reader)->config().max_positions, done, end);
                             }));
    const auto progress = [&](double share) {
      const double all =
          (static_cast<double>(done) + share * static_cast<double>(end - done)) / static_cast<double>(job.completions);
      return context.StepInReplica(bearing::v1::STAGE_JUDGE, all, job.completions, "completions");
    };
    BEARING_ASSIGN_OR_RETURN(const at::Tensor found, engine.Score(rows, yes, no, progress));
    BEARING_RETURN_IF_ERROR(context.OnRank0([&] {
      std::vector<JudgeScore> part;
      for (int64_t i = 0; i < found.size(0); ++i) part.push_back({found[i][0].item<double>(), found[i][1].item<double>()});
      return scores->Append(part);
    }));
  }
  return context.FromRank0([&] { return Facts(job, digest, *prompt, *scores); });
}

}  // namespace bearing::worker
