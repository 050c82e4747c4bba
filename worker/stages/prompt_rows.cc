#include "worker/stages/prompt_rows.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

// Stands for the instruction when the template's own text is looked for; no real prompt holds it.
constexpr char kMarker[] = "BEARINGxINSTRUCTIONxMARKER";

constexpr size_t kEncodeAtOnce = 1024;

}  // namespace

absl::StatusOr<std::string> RenderPrompt(const JobContext& context, const std::string& instruction) {
  std::vector<bridge::Message> messages;
  if (!context.spec.prompts().system().empty()) messages.push_back({"system", context.spec.prompts().system()});
  messages.push_back({"user", instruction});
  return context.tokenizer->Render(messages, /*add_generation_prompt=*/true);
}

namespace {

absl::StatusOr<steer::Rows> EncodePrompts(const JobContext& context, const bearing::v1::PromptSource& source,
                                          const std::vector<jobs::Prompt>& prompts, int64_t room) {
  const int64_t positions = context.reader->config().max_positions;
  steer::Rows rows;
  std::vector<std::string> texts;
  // A part at a time: the texts of all prompts need not be there twice.
  for (size_t begin = 0; begin < prompts.size(); begin += kEncodeAtOnce) {
    const size_t end = std::min(prompts.size(), begin + kEncodeAtOnce);
    texts.clear();
    for (size_t i = begin; i < end; ++i) {
      BEARING_ASSIGN_OR_RETURN(std::string text, RenderPrompt(context, prompts[i].instruction));
      texts.push_back(std::move(text));
    }
    BEARING_ASSIGN_OR_RETURN(auto encoded, context.tokenizer->EncodeBatch(texts, /*threads=*/1));
    for (std::vector<int32_t>& row : encoded) {
      const auto length = static_cast<int64_t>(row.size());
      rows.push_back(std::move(row));
      if (positions == 0 || length + room <= positions) continue;
      return absl::InvalidArgumentError(absl::StrCat("prompt is longer than the model's context",
                                                     room > 0 ? " less the room for an answer" : "", ": file=", source.file(),
                                                     " prompt=", rows.size(), " tokens=", length, " context=", positions));
    }
  }
  return rows;
}

}  // namespace

absl::StatusOr<steer::Rows> ShareRows(JobContext& context, const std::function<absl::StatusOr<steer::Rows>()>& make) {
  absl::StatusOr<steer::Rows> mine = steer::Rows();
  if (context.is_rank0()) mine = make();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, mine.status()));
  if (context.comm->size() == 1) return mine;
  // Length and ids of each row.
  std::string bytes;
  const auto put = [&bytes](int32_t value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
  for (const std::vector<int32_t>& row : *mine) {
    put(static_cast<int32_t>(row.size()));
    for (const int32_t id : row) put(id);
  }
  BEARING_RETURN_IF_ERROR(context.comm->BroadcastBytes(bytes, 0));
  if (context.is_rank0()) return mine;
  size_t at = 0;
  const auto take = [&] {
    int32_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    at += sizeof(value);
    return value;
  };
  while (at < bytes.size()) {
    std::vector<int32_t>& row = mine->emplace_back(take());
    for (int32_t& id : row) id = take();
  }
  return mine;
}

absl::StatusOr<PromptRows> LoadPromptRows(JobContext& context, const bearing::v1::PromptSource& source, int64_t room) {
  PromptRows result;
  BEARING_ASSIGN_OR_RETURN(result.rows, ShareRows(context, [&]() -> absl::StatusOr<steer::Rows> {
                             BEARING_ASSIGN_OR_RETURN(result.prompts,
                                                      jobs::LoadPrompts(source.file(), source.column(), source.count()));
                             return EncodePrompts(context, source, result.prompts, room);
                           }));
  return result;
}

absl::Status CheckTestPrompts(JobContext& context) {
  return context.OnRank0([&]() -> absl::Status {
    if (context.output->IsStageDone("evaluate")) return absl::OkStatus();
    for (const auto* side : {&context.spec.prompts().positive(), &context.spec.prompts().negative()}) {
      const bearing::v1::PromptSource& source = side->test();
      BEARING_ASSIGN_OR_RETURN(const std::vector<jobs::Prompt> prompts,
                               jobs::LoadPrompts(source.file(), source.column(), source.count()));
      BEARING_RETURN_IF_ERROR(EncodePrompts(context, source, prompts, kAnswerRoom).status());
    }
    return absl::OkStatus();
  });
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
