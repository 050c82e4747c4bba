#include "worker/stages/prompt_rows.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

// Stands for the instruction when the template's own text is looked for; no real prompt holds it.
constexpr char kMarker[] = "BEARINGxINSTRUCTIONxMARKER";

absl::StatusOr<std::string> RenderPrompt(const JobContext& context, const std::string& instruction) {
  std::vector<bridge::Message> messages;
  if (!context.spec.prompts().system().empty()) messages.push_back({"system", context.spec.prompts().system()});
  messages.push_back({"user", instruction});
  return context.tokenizer->Render(messages, /*add_generation_prompt=*/true);
}

// The rows of rank 0 on every rank: the number of rows, their lengths, then all ids. Collective.
absl::Status BroadcastRows(comm::Communicator& comm, steer::Rows& rows) {
  if (comm.size() == 1) return absl::OkStatus();
  std::string bytes;
  const auto append = [&bytes](const void* data, size_t size) { bytes.append(static_cast<const char*>(data), size); };
  if (comm.rank() == 0) {
    const uint64_t count = rows.size();
    append(&count, sizeof(count));
    for (const std::vector<int32_t>& row : rows) {
      const uint64_t length = row.size();
      append(&length, sizeof(length));
    }
    for (const std::vector<int32_t>& row : rows) append(row.data(), row.size() * sizeof(int32_t));
  }
  BEARING_RETURN_IF_ERROR(comm.BroadcastBytes(bytes, 0));
  if (comm.rank() == 0) return absl::OkStatus();
  size_t at = 0;
  const auto take = [&](void* into, size_t size) {
    std::memcpy(into, bytes.data() + at, size);
    at += size;
  };
  uint64_t count = 0;
  take(&count, sizeof(count));
  rows.resize(count);
  for (std::vector<int32_t>& row : rows) {
    uint64_t length = 0;
    take(&length, sizeof(length));
    row.resize(length);
  }
  for (std::vector<int32_t>& row : rows) take(row.data(), row.size() * sizeof(int32_t));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PromptRows> LoadPromptRows(JobContext& context, const bearing::v1::PromptSource& source) {
  PromptRows result;
  const auto load = [&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(result.prompts, jobs::LoadPrompts(source.file(), source.column(), source.count()));
    const int64_t room = context.reader->config().max_positions;
    // Some at a time, so that the rendered texts do not add up.
    constexpr size_t kAtOnce = 1024;
    std::vector<std::string> texts;
    for (size_t i = 0; i < result.prompts.size(); ++i) {
      BEARING_ASSIGN_OR_RETURN(std::string text, RenderPrompt(context, result.prompts[i].instruction));
      texts.push_back(std::move(text));
      if (texts.size() < kAtOnce && i + 1 < result.prompts.size()) continue;
      BEARING_ASSIGN_OR_RETURN(auto encoded, context.tokenizer->EncodeBatch(texts, /*threads=*/1));
      for (std::vector<int32_t>& row : encoded) {
        result.rows.push_back(std::move(row));
        const auto tokens = static_cast<int64_t>(result.rows.back().size());
        if (room > 0 && tokens > room) {
          return absl::InvalidArgumentError(absl::StrCat("prompt is longer than the model's context: file=", source.file(),
                                                         " prompt=", result.rows.size(), " tokens=", tokens,
                                                         " context=", room));
        }
      }
      texts.clear();
    }
    return absl::OkStatus();
  };
  BEARING_RETURN_IF_ERROR(context.OnRank0(load));
  BEARING_RETURN_IF_ERROR(BroadcastRows(*context.comm, result.rows));
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
