#include "jobs/plan/judge_work.h"

#include <memory>
#include <utility>

#include "jobs/judge/judge_prompt.h"
#include "jobs/judge/judge_settings.h"
#include "jobs/plan/token_counter.h"
#include "jobs/prompt_set.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/status_macros.h"
#include "storage/model_source.h"

namespace bearing::jobs {
namespace {

// A side's test prompts are continued so often (evaluate).
constexpr int64_t kTimesPositive = 2;
constexpr int64_t kTimesNegative = 3;

// A prompt, and how many completions of it there will be.
struct Asked {
  std::vector<Exchange> exchanges;
  std::vector<int64_t> times;
};

absl::Status AddPrompts(const bearing::v1::PromptSource& source, int64_t times, Asked& asked) {
  BEARING_ASSIGN_OR_RETURN(const std::vector<Prompt> prompts, LoadPrompts(source.file(), source.column(), source.count()));
  for (const Prompt& prompt : prompts) asked.exchanges.push_back({prompt.instruction, ""});
  asked.times.resize(asked.exchanges.size(), times);
  return absl::OkStatus();
}

// Shape of the judge's model: of its shards' headers, or of its config where there are none (yet).
absl::Status ReadShape(const storage::ModelSource& source, JudgeWork& work) {
  const auto reader = source.OpenCheckpoint();
  if (reader.ok()) {
    work.config = (*reader)->config();
    work.layout = (*reader)->layout();
    return absl::OkStatus();
  }
  if (!absl::IsNotFound(reader.status())) return reader.status();
  BEARING_ASSIGN_OR_RETURN(work.config, sharding::LoadModelConfig(source.folder()));
  work.layout = sharding::ParamLayout::FromConfig(work.config);
  return absl::OkStatus();
}

absl::StatusOr<JudgeWork> CountJudge(const bearing::v1::Judge& judge, const Asked& asked, int64_t new_tokens) {
  BEARING_ASSIGN_OR_RETURN(const auto source, storage::ModelSource::Open(judge.model().path(), judge.model().chat_template()));
  JudgeWork work;
  work.name = judge.name();
  work.dtype = judge.model().dtype();
  BEARING_RETURN_IF_ERROR(ReadShape(*source, work));
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<JudgePrompt> prompt, JudgePrompt::Open(judge.model(), *source));
  BEARING_ASSIGN_OR_RETURN(const auto rows, prompt->Encode(asked.exchanges));
  const PromptLengths once = LengthsOf(rows);
  work.rows.shared = once.shared;
  for (size_t i = 0; i < once.tokens.size(); ++i) {
    work.rows.tokens.insert(work.rows.tokens.end(), static_cast<size_t>(asked.times[i]), once.tokens[i] + new_tokens);
  }
  return work;
}

}  // namespace

absl::StatusOr<std::vector<JudgeWork>> CountJudges(const bearing::v1::JobSpec& spec) {
  std::vector<JudgeWork> works;
  if (spec.evaluate().skip()) return works;
  Asked asked;
  for (const bearing::v1::Judge& judge : JudgesOf(spec)) {
    if (judge.kind() != "model") continue;
    if (asked.exchanges.empty()) {
      BEARING_RETURN_IF_ERROR(AddPrompts(spec.prompts().positive().test(), kTimesPositive, asked));
      BEARING_RETURN_IF_ERROR(AddPrompts(spec.prompts().negative().test(), kTimesNegative, asked));
    }
    BEARING_ASSIGN_OR_RETURN(JudgeWork work, CountJudge(judge, asked, spec.evaluate().max_new_tokens()));
    works.push_back(std::move(work));
  }
  return works;
}

}  // namespace bearing::jobs
