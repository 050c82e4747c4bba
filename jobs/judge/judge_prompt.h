// What a judge's model reads, and which tokens its verdict begins with.
//
// Not thread-safe: one thread uses it. Owns nothing but texts and the tokenizer.
#ifndef BEARING_JOBS_JUDGE_JUDGE_PROMPT_H_
#define BEARING_JOBS_JUDGE_JUDGE_PROMPT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "bridge/chat_tokenizer.h"
#include "storage/model_source.h"

namespace bearing::jobs {

// Of a job's prompt and a completion.
struct Exchange {
  std::string prompt;
  std::string response;
};

class JudgePrompt {
 public:
  // Loads tokenizer, template and prompt. `judge` has its defaults and a model. Errors name the field: the tokenizer's, a
  // prompt file that cannot be read or lacks {response}, a chat template that does not take such a conversation, verdicts that
  // begin with the same token or merge with the text before them.
  static absl::StatusOr<std::unique_ptr<JudgePrompt>> Open(const bearing::v1::JudgeModel& model,
                                                           const storage::ModelSource& source);

  // Token ids that the model reads.
  absl::StatusOr<std::vector<std::vector<int32_t>>> Encode(const std::vector<Exchange>& exchanges) const;

  // First tokens of the verdicts, as they come behind the prompt; the two share none.
  const std::vector<int32_t>& yes_ids() const { return yes_ids_; }
  const std::vector<int32_t>& no_ids() const { return no_ids_; }

  // Of the text that stands around prompt and completion; part of what a verdict depends on.
  const std::string& text() const { return text_; }

 private:
  JudgePrompt() = default;

  absl::StatusOr<std::string> Render(const Exchange& exchange) const;
  absl::StatusOr<std::vector<int32_t>> FirstTokens(const google::protobuf::RepeatedPtrField<std::string>& answers,
                                                   const char* field) const;

  std::unique_ptr<bridge::ChatTokenizer> tokenizer_;
  std::string format_, text_, before_verdict_;
  std::vector<int32_t> yes_ids_, no_ids_;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_JUDGE_JUDGE_PROMPT_H_
