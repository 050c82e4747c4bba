#include <cmath>
#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "jobs/atomic_file.h"
#include "jobs/completion_journal.h"
#include "jobs/judge/judge_settings.h"
#include "jobs/judge/judge_tally.h"
#include "jobs/judge/response_text.h"
#include "jobs/judge/substring_judge.h"
#include "jobs/prompt_set.h"
#include "sharding/status_macros.h"
#include "worker/stages/evaluation.h"
#include "worker/stages/model_judge.h"
#include "worker/stages/stages.h"

namespace bearing::worker {
namespace {

constexpr char kScoresFolder[] = ".bearing/judge";

// A completion's number in completions.jsonl, taken apart.
struct Place {
  int condition = 0;
  int64_t row = 0;
};

class JudgeStage {
 public:
  explicit JudgeStage(JobContext& context) : context_(context), judges_(jobs::JudgesOf(context.spec)) {}

  absl::StatusOr<StageFiles> Run() {
    BEARING_RETURN_IF_ERROR(context_.OnRank0([&] { return Open(); }));
    BEARING_RETURN_IF_ERROR(RunModels());
    BEARING_RETURN_IF_ERROR(context_.OnRank0([&] { return Write(); }));
    return StageFiles{"completions.jsonl", "evaluation.json"};
  }

 private:
  // Prompts, and where the completions lie. Rank 0.
  absl::Status Open() {
    const bearing::v1::Prompts& prompts = context_.spec.prompts();
    const auto load = [](const bearing::v1::PromptSource& source) {
      return jobs::LoadPrompts(source.file(), source.column(), source.count());
    };
    BEARING_ASSIGN_OR_RETURN(positive_, load(prompts.positive().test()));
    BEARING_ASSIGN_OR_RETURN(negative_, load(prompts.negative().test()));
    std::vector<int64_t> rows;
    for (const Condition& condition : kConditions) {
      rows.push_back(static_cast<int64_t>(PromptsOf(condition).size()));
      all_ += rows.back();
    }
    std::vector<std::string> files;
    for (const std::string& file : CompletionsFiles(context_)) files.push_back(context_.output->PathOf(file));
    BEARING_ASSIGN_OR_RETURN(index_, jobs::CompletionIndex::Read(files, rows));
    if (index_.found() != all_) {
      return absl::DataLossError(absl::StrCat("completions are missing: found=", index_.found(), " expected=", all_,
                                              " folder=", context_.output->PathOf(kCompletionsFolder)));
    }
    BEARING_ASSIGN_OR_RETURN(subject_, ReadJsonArtifact(context_, kCompletionsPlan));
    std::error_code error;
    std::filesystem::create_directories(context_.output->PathOf(kScoresFolder), error);
    return error ? absl::UnavailableError(absl::StrCat("cannot create the folder: ", error.message())) : absl::OkStatus();
  }

  const std::vector<jobs::Prompt>& PromptsOf(const Condition& condition) const {
    return condition.is_positive() ? positive_ : negative_;
  }

  absl::Status RunModels() {
    models_.resize(judges_.size());
    for (size_t j = 0; j < judges_.size(); ++j) {
      if (judges_[j].kind() != "model") continue;
      JudgeModelJob job;
      job.judge = &judges_[j];
      job.exchange = [this](int64_t index) -> absl::StatusOr<jobs::Exchange> {
        const Place place = PlaceOf(index);
        BEARING_ASSIGN_OR_RETURN(jobs::CompletionRecord record, index_.Get(place.condition, place.row));
        return jobs::Exchange{PromptsOf(kConditions[place.condition])[place.row].instruction, std::move(record.response)};
      };
      if (context_.is_rank0()) {
        job.path = context_.output->PathOf(absl::StrCat(kScoresFolder, "/", judges_[j].name()));
        job.subject = subject_;
      }
      BEARING_ASSIGN_OR_RETURN(const nlohmann::json all,
                               context_.FromRank0([&]() -> absl::StatusOr<nlohmann::json> { return nlohmann::json(all_); }));
      job.completions = all.get<int64_t>();
      BEARING_ASSIGN_OR_RETURN(models_[j], RunModelJudge(context_, job));
      if (!context_.is_rank0()) continue;
      BEARING_ASSIGN_OR_RETURN(JudgeScores scores, JudgeScores::Reopen(job.path));
      scores_.emplace(j, std::move(scores));
    }
    return absl::OkStatus();
  }

  Place PlaceOf(int64_t index) const {
    Place place;
    for (const Condition& condition : kConditions) {
      const auto rows = static_cast<int64_t>(PromptsOf(condition).size());
      if (index < rows) break;
      index -= rows;
      ++place.condition;
    }
    place.row = index;
    return place;
  }

  // What judge `j` says of completion `index`.
  absl::StatusOr<jobs::Verdict> Judge(size_t j, int64_t index, const jobs::CompletionRecord& record, size_t words) const {
    const bearing::v1::Judge& judge = judges_[j];
    jobs::Verdict verdict;
    if (judge.kind() == "substrings") {
      verdict.yes = !substrings_[j].Match(record.response).empty();
    } else if (judge.kind() == "metric") {
      if (!std::isnan(record.metric)) {
        verdict.score = record.metric;
        verdict.yes = record.metric > judge.threshold();
      }
    } else {
      BEARING_ASSIGN_OR_RETURN(const JudgeScore score, scores_.at(j).Get(index));
      if (!std::isnan(score.probability())) {
        verdict.score = score.probability();
        verdict.yes = score.probability() > judge.threshold();
      }
    }
    if (verdict.yes.has_value() && words < static_cast<size_t>(judge.min_words())) verdict.yes = false;
    return verdict;
  }

  // completions.jsonl and evaluation.json. Rank 0.
  absl::Status Write() {
    for (const bearing::v1::Judge& judge : judges_) substrings_.emplace_back(judge.markers());
    const jobs::SubstringJudge markers(context_.spec.concept_spec().markers());
    jobs::JudgeTally tally(judges_, context_.spec.concept_spec().name());
    BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<jobs::AtomicFile> file,
                             jobs::AtomicFile::Create(context_.output->PathOf("completions.jsonl")));
    for (int64_t index = 0; index < all_; ++index) {
      const Place place = PlaceOf(index);
      const Condition& condition = kConditions[place.condition];
      const jobs::Prompt& prompt = PromptsOf(condition)[place.row];
      BEARING_ASSIGN_OR_RETURN(const jobs::CompletionRecord record, index_.Get(place.condition, place.row));
      const size_t words = jobs::CountWords(record.response);
      std::vector<jobs::Verdict> verdicts;
      nlohmann::json said = nlohmann::json::object();
      for (size_t j = 0; j < judges_.size(); ++j) {
        BEARING_ASSIGN_OR_RETURN(jobs::Verdict verdict, Judge(j, index, record, words));
        nlohmann::json& entry = said[judges_[j].name()];
        entry["verdict"] = verdict.yes.has_value() ? nlohmann::json(*verdict.yes) : nlohmann::json(nullptr);
        if (judges_[j].kind() != "substrings") {
          entry["score"] = verdict.score.has_value() ? nlohmann::json(*verdict.score) : nlohmann::json(nullptr);
        }
        verdicts.push_back(verdict);
      }
      tally.Add(condition.side, condition.intervention, prompt.category, verdicts);
      const nlohmann::json line = {
          {"side", condition.side},
          {"intervention", condition.intervention},
          {"category", prompt.category},
          {"prompt", prompt.instruction},
          {"response", record.response},
          {"finish", record.finish},
          {"tokens", record.tokens},
          {"metric", std::isnan(record.metric) ? nlohmann::json(nullptr) : nlohmann::json(record.metric)},
          {"shows_concept", tally.ShowsConcept(0, verdicts[0]).value_or(false)},
          {"matched_marker", markers.Match(record.response)},
          {"verdicts", std::move(said)}};
      BEARING_RETURN_IF_ERROR(file->Append(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"));
    }
    BEARING_RETURN_IF_ERROR(file->Commit());
    const bearing::v1::Evaluate& settings = context_.spec.evaluate();
    nlohmann::json evaluation = tally.ToJson(models_);
    evaluation["max_new_tokens"] = settings.max_new_tokens();
    evaluation["addition_factor"] = settings.addition_factor();
    evaluation["temperature"] = settings.temperature();
    evaluation["top_p"] = settings.top_p();
    evaluation["seed"] = settings.seed();
    return jobs::WriteFileAtomically(context_.output->PathOf("evaluation.json"), evaluation.dump(1) + "\n");
  }

  JobContext& context_;
  std::vector<bearing::v1::Judge> judges_;
  std::vector<nlohmann::json> models_;  // What is known of each judge's model.
  // Rank 0.
  std::vector<jobs::Prompt> positive_, negative_;
  int64_t all_ = 0;
  jobs::CompletionIndex index_;
  nlohmann::json subject_;
  std::map<size_t, JudgeScores> scores_;  // By judge.
  std::vector<jobs::SubstringJudge> substrings_;
};

}  // namespace

absl::StatusOr<StageFiles> RunJudge(JobContext& context) { return JudgeStage(context).Run(); }

}  // namespace bearing::worker
