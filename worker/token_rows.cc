#include "worker/token_rows.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "jobs/artifacts.h"
#include "sharding/status_macros.h"

namespace bearing::worker {

absl::StatusOr<steer::Rows> ReadTokenIds(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(path));
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto bad = [&](const std::string& where) {
    return absl::InvalidArgumentError(absl::StrCat("expected a JSON list of non-empty lists of token ids: file=", path, where));
  };
  if (!document.is_array() || document.empty()) return bad("");
  steer::Rows rows;
  for (size_t r = 0; r < document.size(); ++r) {
    if (!document[r].is_array() || document[r].empty()) return bad(absl::StrCat(" row=", r + 1));
    std::vector<int32_t> row;
    for (const nlohmann::json& id : document[r]) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
        return bad(absl::StrCat(" row=", r + 1));
      row.push_back(id.get<int32_t>());
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

absl::StatusOr<steer::Rows> EncodePrompts(const bridge::ChatTokenizer& tokenizer, absl::Span<const jobs::Prompt> prompts,
                                          const std::string& suffix) {
  std::vector<std::string> texts;
  for (const jobs::Prompt& prompt : prompts) {
    BEARING_ASSIGN_OR_RETURN(std::string text,
                             tokenizer.Render({{"user", prompt.instruction + suffix}}, /*add_generation_prompt=*/true));
    texts.push_back(std::move(text));
  }
  return tokenizer.EncodeBatch(texts, /*threads=*/1);
}

}  // namespace bearing::worker
