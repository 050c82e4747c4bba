// Tokens of a job's prompts and texts: counted with the model's tokenizer and chat template, or guessed from characters where
// there is none. Private to the planner. As thread-safe as the tokenizer.
#ifndef BEARING_JOBS_PLAN_TOKEN_COUNTER_H_
#define BEARING_JOBS_PLAN_TOKEN_COUNTER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "bridge/chat_tokenizer.h"
#include "jobs/plan/batches.h"

namespace bearing::jobs {

inline constexpr int64_t kCharactersPerToken = 4;
inline constexpr int64_t kTemplateTokens = 20;  // In front of a prompt, where they are guessed.

class TokenCounter {
 public:
  // Both outlive the counter; `tokenizer` may be nullptr. `positions`: tokens behind an instruction, where they are guessed.
  TokenCounter(const bearing::v1::JobSpec& spec, const bridge::ChatTokenizer* tokenizer, int64_t positions)
      : spec_(spec), tokenizer_(tokenizer), positions_(positions) {}

  // Tokens of the template behind the instruction.
  absl::StatusOr<int64_t> Positions() const;

  // Of the conversations with these instructions, up to where the answer begins.
  absl::StatusOr<PromptLengths> Conversations(const std::vector<std::string>& instructions) const;

  // The same of a prompt file; none for a source without one. Errors of LoadPrompts and of the template.
  absl::StatusOr<PromptLengths> Count(const bearing::v1::PromptSource& source) const;

  // Of a text as it stands; `special`: behind the tokens that the tokenizer puts in front.
  absl::StatusOr<int64_t> Plain(const std::string& text, bool special) const;

 private:
  absl::StatusOr<std::string> Render(const std::string& instruction) const;

  const bearing::v1::JobSpec& spec_;
  const bridge::ChatTokenizer* tokenizer_;
  int64_t positions_;
};

// Lengths of rows, and what all of them share in front.
PromptLengths LengthsOf(const std::vector<std::vector<int32_t>>& rows);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PLAN_TOKEN_COUNTER_H_
