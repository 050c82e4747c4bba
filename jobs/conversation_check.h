// What of a job can be checked with the model's tokenizer and chat template alone, before any weight is read.
#ifndef BEARING_JOBS_CONVERSATION_CHECK_H_
#define BEARING_JOBS_CONVERSATION_CHECK_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"
#include "bridge/chat_tokenizer.h"
#include "storage/model_source.h"

namespace bearing::jobs {

// concept.token_ids, then the ids of concept.tokens; none when the tokens are to be derived. InvalidArgument for an id outside
// the vocabulary or a text that is not exactly one token.
absl::StatusOr<std::vector<int32_t>> ConceptTokens(const bearing::v1::Concept& concept_spec,
                                                   const bridge::ChatTokenizer& tokenizer, int64_t vocab_size);

// The tokenizer loads, the chat template takes a conversation of this job, and ConceptTokens succeeds.
absl::Status CheckConversation(const bearing::v1::JobSpec& spec, const storage::ModelSource& model, int64_t vocab_size);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_CONVERSATION_CHECK_H_
