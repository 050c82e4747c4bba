// Rows of token ids for the commands that run prompts without a job (trace, probe).
#ifndef BEARING_WORKER_TOKEN_ROWS_H_
#define BEARING_WORKER_TOKEN_ROWS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bridge/chat_tokenizer.h"
#include "jobs/prompt_set.h"
#include "worker/steer/row_batches.h"

namespace bearing::worker {

// A JSON list of non-empty lists of token ids. InvalidArgument naming file and row.
absl::StatusOr<steer::Rows> ReadTokenIds(const std::string& path);

// Each prompt, with `suffix` behind it as it stands, as a conversation of one user turn. Errors of the template.
absl::StatusOr<steer::Rows> EncodePrompts(const bridge::ChatTokenizer& tokenizer, absl::Span<const jobs::Prompt> prompts,
                                          const std::string& suffix = "");

}  // namespace bearing::worker

#endif  // BEARING_WORKER_TOKEN_ROWS_H_
