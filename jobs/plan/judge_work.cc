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
constexpr int kTimesPositive = 2;
constexpr int kTimesNegative = 3;

absl::StatusOr<JudgeWork> CountJudge(const bearing::v1::Judge& judge, const std::vector<Exchange>& exchanges,
                                     int64_t new_tokens) {
  BEARING_ASSIGN_OR_RETURN(const auto source, storage::ModelSource::Open(judge.model().path(), judge.model().chat_template()));
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<sharding::CheckpointReader> reader, source->OpenCheckpoint());
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<JudgePrompt> prompt, JudgePrompt::Open(judge.model(), *source));
  BEARING_ASSIGN_OR_RETURN(const auto rows, prompt->Encode(exchanges));
  JudgeWork work{judge.name(), judge.model().dtype(), reader->config(), reader->layout(), LengthsOf(rows)};
  for (int64_t& tokens : work.rows.tokens) tokens += new_tokens;
  return work;
}

}  // namespace

absl::StatusOr<std::vector<JudgeWork>> CountJudges(const bearing::v1::JobSpec& spec) {
  std::vector<JudgeWork> works;
  if (spec.evaluate().skip()) return works;
  std::vector<Exchange> exchanges;
  for (const bearing::v1::Judge& judge : JudgesOf(spec)) {
    if (judge.kind() != "model") continue;
    if (exchanges.empty()) {
      for (const auto& [side, times] :
           {std::pair(&spec.prompts().positive(), kTimesPositive), std::pair(&spec.prompts().negative(), kTimesNegative)}) {
        const bearing::v1::PromptSource& source = side->test();
        BEARING_ASSIGN_OR_RETURN(const std::vector<Prompt> prompts,
                                 LoadPrompts(source.file(), source.column(), source.count()));
        for (int i = 0; i < times; ++i) {
          for (const Prompt& prompt : prompts) exchanges.push_back({prompt.instruction, ""});
        }
      }
    }
    BEARING_ASSIGN_OR_RETURN(JudgeWork work, CountJudge(judge, exchanges, spec.evaluate().max_new_tokens()));
    works.push_back(std::move(work));
  }
  return works;
}

}  // namespace bearing::jobs
