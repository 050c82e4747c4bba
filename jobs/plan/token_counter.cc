#include "jobs/plan/token_counter.h"

#include <algorithm>
#include <string_view>

#include "jobs/prompt_set.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

// Stands for the instruction when the template's own text is looked for; no real prompt holds it.
constexpr std::string_view kMarker = "BEARINGxINSTRUCTIONxMARKER";

int64_t EstimateTokens(const std::string& text) {
  return std::max<int64_t>(1, static_cast<int64_t>(text.size()) / kCharactersPerToken);
}

}  // namespace

PromptLengths LengthsOf(const std::vector<std::vector<int32_t>>& rows) {
  PromptLengths lengths;
  if (rows.empty()) return lengths;
  lengths.shared = static_cast<int64_t>(rows[0].size());
  for (const std::vector<int32_t>& row : rows) {
    const auto limit = static_cast<std::ptrdiff_t>(std::min<size_t>(lengths.shared, row.size()));
    lengths.shared = std::mismatch(row.begin(), row.begin() + limit, rows[0].begin()).first - row.begin();
    lengths.tokens.push_back(static_cast<int64_t>(row.size()));
  }
  return lengths;
}

absl::StatusOr<std::string> TokenCounter::Render(const std::string& instruction) const {
  std::vector<bridge::Message> messages;
  if (!spec_.prompts().system().empty()) messages.push_back({"system", spec_.prompts().system()});
  messages.push_back({"user", instruction});
  return tokenizer_->Render(messages, /*add_generation_prompt=*/true);
}

absl::StatusOr<int64_t> TokenCounter::Positions() const {
  if (tokenizer_ == nullptr) return positions_;
  BEARING_ASSIGN_OR_RETURN(const std::string text, Render(std::string(kMarker)));
  const size_t at = text.rfind(kMarker);
  if (at == std::string::npos) {
    return absl::FailedPreconditionError("the chat template does not keep the user's text as it is");
  }
  BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer_->Encode(text.substr(at + kMarker.size())));
  return static_cast<int64_t>(ids.size());
}

absl::StatusOr<PromptLengths> TokenCounter::Conversations(const std::vector<std::string>& instructions) const {
  if (tokenizer_ == nullptr) {
    PromptLengths lengths;
    lengths.shared = kTemplateTokens + (spec_.prompts().system().empty() ? 0 : EstimateTokens(spec_.prompts().system()));
    for (const std::string& text : instructions) lengths.tokens.push_back(lengths.shared + EstimateTokens(text) + positions_);
    return lengths;
  }
  std::vector<std::string> texts;
  for (const std::string& instruction : instructions) {
    BEARING_ASSIGN_OR_RETURN(std::string text, Render(instruction));
    texts.push_back(std::move(text));
  }
  BEARING_ASSIGN_OR_RETURN(const auto rows, tokenizer_->EncodeBatch(texts, /*threads=*/1));
  return LengthsOf(rows);
}

absl::StatusOr<PromptLengths> TokenCounter::Count(const bearing::v1::PromptSource& source) const {
  if (source.file().empty()) return PromptLengths();
  BEARING_ASSIGN_OR_RETURN(std::vector<Prompt> prompts, LoadPrompts(source.file(), source.column(), source.count()));
  std::vector<std::string> instructions;
  instructions.reserve(prompts.size());
  for (Prompt& prompt : prompts) instructions.push_back(std::move(prompt.instruction));
  return Conversations(instructions);
}

absl::StatusOr<int64_t> TokenCounter::Plain(const std::string& text, bool special) const {
  if (tokenizer_ == nullptr) return EstimateTokens(text);
  BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer_->Encode(text, special));
  return static_cast<int64_t>(ids.size());
}

}  // namespace bearing::jobs
