#include "worker/stages/prompt_rows.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

// Stands for the instruction when the template's own text is looked for; no real prompt holds it.
constexpr char kMarker[] = "BEARINGxINSTRUCTIONxMARKER";

}  // namespace

absl::StatusOr<std::string> RenderPrompt(const JobContext& context, const std::string& instruction) {
  std::vector<bridge::Message> messages;
  if (!context.spec.prompts().system().empty()) messages.push_back({"system", context.spec.prompts().system()});
  messages.push_back({"user", instruction});
  return context.tokenizer->Render(messages, /*add_generation_prompt=*/true);
}

absl::StatusOr<PromptRows> LoadPromptRows(JobContext& context, const bearing::v1::PromptSource& source) {
  PromptRows result;
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json rows, context.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
    BEARING_ASSIGN_OR_RETURN(result.prompts, jobs::LoadPrompts(source.file(), source.column(), source.count()));
    std::vector<std::string> texts;
    for (const jobs::Prompt& prompt : result.prompts) {
      BEARING_ASSIGN_OR_RETURN(std::string text, RenderPrompt(context, prompt.instruction));
      texts.push_back(std::move(text));
    }
    BEARING_ASSIGN_OR_RETURN(auto encoded, context.tokenizer->EncodeBatch(texts, /*threads=*/1));
    const int64_t room = context.reader->config().max_positions;
    for (size_t i = 0; i < encoded.size(); ++i) {
      if (room > 0 && static_cast<int64_t>(encoded[i].size()) > room) {
        return absl::InvalidArgumentError(absl::StrCat("prompt is longer than the model's context: file=", source.file(),
                                                       " prompt=", i + 1, " tokens=", encoded[i].size(), " context=", room));
      }
    }
    return nlohmann::json(encoded);
  }));
  result.rows = rows.get<steer::Rows>();
  return result;
}

absl::StatusOr<PostInstruction> FindPostInstruction(JobContext& context) {
  PostInstruction post;
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json ids, context.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
    BEARING_ASSIGN_OR_RETURN(const std::string text, RenderPrompt(context, kMarker));
    const size_t at = text.rfind(kMarker);
    if (at == std::string::npos) {
      return absl::FailedPreconditionError("the chat template does not keep the user's text as it is");
    }
    BEARING_ASSIGN_OR_RETURN(post.ids, context.tokenizer->Encode(text.substr(at + sizeof(kMarker) - 1)));
    if (post.ids.empty()) {
      return absl::FailedPreconditionError("the chat template has no text behind the instruction: no position to read");
    }
    for (const int32_t id : post.ids) {
      BEARING_ASSIGN_OR_RETURN(std::string token, context.tokenizer->TokenText(id));
      post.texts.push_back(std::move(token));
    }
    return nlohmann::json(post.ids);
  }));
  post.ids = ids.get<std::vector<int32_t>>();
  return post;
}

absl::Status CheckEndings(const steer::Rows& rows, const PostInstruction& post, const std::string& set_name) {
  for (size_t r = 0; r < rows.size(); ++r) {
    const bool ends = rows[r].size() > post.ids.size() && std::equal(post.ids.rbegin(), post.ids.rend(), rows[r].rbegin());
    if (!ends) {
      return absl::FailedPreconditionError(
          absl::StrCat("the prompt's last tokens are not those of the template (its text merges with them): set=", set_name,
                       " prompt=", r + 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace bearing::worker
