// Prompts of a job as token rows: loaded and tokenized by rank 0, the same on every rank.
#ifndef BEARING_WORKER_STAGES_PROMPT_ROWS_H_
#define BEARING_WORKER_STAGES_PROMPT_ROWS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "jobs/prompt_set.h"
#include "worker/job_context.h"
#include "worker/steer/row_batches.h"

namespace bearing::worker {

// The conversation with this instruction, up to where the answer begins. Rank 0.
absl::StatusOr<std::string> RenderPrompt(const JobContext& context, const std::string& instruction);

struct PromptRows {
  steer::Rows rows;
  std::vector<jobs::Prompt> prompts;  // Rank 0 only.
};

// Collective. InvalidArgument from the prompt file or the template.
absl::StatusOr<PromptRows> LoadPromptRows(JobContext& context, const bearing::v1::PromptSource& source);

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
