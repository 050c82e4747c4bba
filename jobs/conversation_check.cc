#include "jobs/conversation_check.h"

#include <memory>
#include <string>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {

absl::StatusOr<std::vector<int32_t>> ConceptTokens(const bearing::v1::Concept& concept_spec,
                                                   const bridge::ChatTokenizer& tokenizer, int64_t vocab_size) {
  std::vector<int32_t> ids(concept_spec.token_ids().begin(), concept_spec.token_ids().end());
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return absl::InvalidArgumentError(Concat("concept.token_ids: outside the vocabulary: id=", id, " vocab=", vocab_size));
    }
  }
  for (const std::string& text : concept_spec.tokens()) {
    BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> encoded, tokenizer.Encode(text));
    if (encoded.size() != 1) {
      return absl::InvalidArgumentError(
          Concat("concept.tokens: must be exactly one token of this model: text=\"", text, "\" tokens=", encoded.size()));
    }
    ids.push_back(encoded[0]);
  }
  return ids;
}

absl::Status CheckConversation(const bearing::v1::JobSpec& spec, const storage::ModelSource& model, int64_t vocab_size) {
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<bridge::ChatTokenizer> tokenizer,
                           bridge::ChatTokenizer::Load(model.folder(), model.chat_template()));
  std::vector<bridge::Message> messages;
  if (!spec.prompts().system().empty()) messages.push_back({"system", spec.prompts().system()});
  messages.push_back({"user", "prompt"});
  BEARING_RETURN_IF_ERROR(tokenizer->Render(messages, /*add_generation_prompt=*/true).status());
  return ConceptTokens(spec.concept_spec(), *tokenizer, vocab_size).status();
}

}  // namespace bearing::jobs
