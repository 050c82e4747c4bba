// Prompts of a job as token rows: loaded and tokenized by rank 0, the same on every rank.
#ifndef BEARING_WORKER_STAGES_PROMPT_ROWS_H_
#define BEARING_WORKER_STAGES_PROMPT_ROWS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "jobs/prompt_set.h"
#include "worker/job_context.h"
#include "worker/steer/row_batches.h"

namespace bearing::worker {

// Tokens of the context that a test prompt must leave.
inline constexpr int64_t kAnswerRoom = 1;
// The conversation with this instruction, up to where the answer begins. Rank 0.
absl::StatusOr<std::string> RenderPrompt(const JobContext& context, const std::string& instruction);

struct PromptRows {
  steer::Rows rows;
  std::vector<jobs::Prompt> prompts;  // Rank 0 only.
};

// Collective. InvalidArgument from the prompt file or the template, and for a prompt that does not leave `room` tokens of the
// model's context.
absl::StatusOr<PromptRows> LoadPromptRows(JobContext& context, const bearing::v1::PromptSource& source, int64_t room = 0);

// The test prompts load and leave room for an answer: what would else be found after hours. Collective.
absl::Status CheckTestPrompts(JobContext& context);

// The rows that `make` gives on rank 0, on every rank; its error becomes everyone's. Collective.
absl::StatusOr<steer::Rows> ShareRows(JobContext& context, const std::function<absl::StatusOr<steer::Rows>()>& make);

// The tokens that follow the instruction in every prompt: the template's text behind it. These are the positions whose
// residuals are candidates (the paper's post-instruction tokens).
struct PostInstruction {
  std::vector<int32_t> ids;        // Oldest first.
  std::vector<std::string> texts;  // Rank 0 only.
};
absl::StatusOr<PostInstruction> FindPostInstruction(JobContext& context);

// FailedPrecondition naming the first row that does not end with the post-instruction tokens.
absl::Status CheckEndings(const steer::Rows& rows, const PostInstruction& post, const std::string& set_name);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_STAGES_PROMPT_ROWS_H_
