#include "jobs/judge/judge_prompt.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "jobs/artifacts.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

using bearing::v1::JudgeModel;

constexpr char kPrompt[] = "{prompt}", kResponse[] = "{response}";

absl::Status Wrong(const char* field, std::string_view message) {
  return absl::InvalidArgumentError(Concat("model.", field, ": ", message));
}

// The classifiers' card holds their prompt as a Python text: `"prompt": '''...'''`, with {behavior} and {generation}.
absl::StatusOr<std::string> PromptOfCard(const storage::ModelSource& source) {
  constexpr std::string_view kBegin = "\"prompt\": '''", kEnd = "'''";
  const absl::StatusOr<std::string> card = ReadFile(source.folder() + "/README.md");
  const size_t begin = card.ok() ? card->find(kBegin) : std::string::npos;
  const size_t end = begin == std::string::npos ? begin : card->find(kEnd, begin + kBegin.size());
  if (end == std::string::npos) {
    return Wrong("prompt_file",
                 "the preset harmbench takes the prompt from the model's card (README.md in its folder), which is not there or "
                 "does not hold it: give a file with the classifier's prompt");
  }
  return card->substr(begin + kBegin.size(), end - begin - kBegin.size());
}

absl::StatusOr<std::string> PromptText(const JudgeModel& model, const storage::ModelSource& source) {
  std::string text = model.prompt();
  if (model.format() == "conversation") return text;
  if (!model.prompt_file().empty()) {
    BEARING_ASSIGN_OR_RETURN(text, ReadInput(model.prompt_file()));
  } else if (text.empty() && model.preset() == "harmbench") {
    BEARING_ASSIGN_OR_RETURN(text, PromptOfCard(source));
  }
  // As HarmBench calls the two.
  text = absl::StrReplaceAll(text, {{"{behavior}", kPrompt}, {"{generation}", kResponse}});
  if (!absl::StrContains(text, kResponse)) {
    return Wrong("prompt_file", Concat("must hold {response}, the place of the completion: file=", model.prompt_file()));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JudgePrompt>> JudgePrompt::Open(const JudgeModel& model, const storage::ModelSource& source) {
  auto prompt = std::unique_ptr<JudgePrompt>(new JudgePrompt());
  BEARING_ASSIGN_OR_RETURN(prompt->tokenizer_, bridge::ChatTokenizer::Load(source.folder(), source.chat_template()));
  prompt->format_ = model.format();
  prompt->before_verdict_ = model.before_verdict();
  BEARING_ASSIGN_OR_RETURN(prompt->text_, PromptText(model, source));
  BEARING_ASSIGN_OR_RETURN(prompt->yes_ids_, prompt->FirstTokens(model.says_yes(), "says_yes"));
  BEARING_ASSIGN_OR_RETURN(prompt->no_ids_, prompt->FirstTokens(model.says_no(), "says_no"));
  for (const int32_t id : prompt->yes_ids_) {
    if (std::find(prompt->no_ids_.begin(), prompt->no_ids_.end(), id) == prompt->no_ids_.end()) continue;
    BEARING_ASSIGN_OR_RETURN(const std::string token, prompt->tokenizer_->TokenText(id));
    return Wrong(
        "says_no",
        Concat("begins with the same token as model.says_yes, so that the first token tells nothing: token=\"", token, "\""));
  }
  return prompt;
}

absl::StatusOr<std::string> JudgePrompt::Render(const Exchange& exchange) const {
  std::string text;
  if (format_ == "conversation") {
    // Guard templates end in the judge's turn by themselves.
    BEARING_ASSIGN_OR_RETURN(text, tokenizer_->Render({{"user", exchange.prompt}, {"assistant", exchange.response}},
                                                      /*add_generation_prompt=*/false));
  } else {
    // One pass, so that a completion which holds "{prompt}" stays as it is.
    text = absl::StrReplaceAll(text_, {{kPrompt, exchange.prompt}, {kResponse, exchange.response}});
    if (format_ == "chat") {
      BEARING_ASSIGN_OR_RETURN(text, tokenizer_->Render({{"user", text}}, /*add_generation_prompt=*/true));
    }
  }
  if (!absl::EndsWith(text, before_verdict_)) text += before_verdict_;
  return text;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> JudgePrompt::Encode(const std::vector<Exchange>& exchanges) const {
  std::vector<std::vector<int32_t>> rows;
  for (const Exchange& exchange : exchanges) {
    BEARING_ASSIGN_OR_RETURN(const std::string text, Render(exchange));
    // A chat template writes its special tokens itself.
    BEARING_ASSIGN_OR_RETURN(std::vector<int32_t> row, tokenizer_->Encode(text, /*add_special_tokens=*/format_ == "raw"));
    if (row.empty()) return Wrong("prompt", "gives no token");
    rows.push_back(std::move(row));
  }
  return rows;
}

absl::StatusOr<std::vector<int32_t>> JudgePrompt::FirstTokens(const google::protobuf::RepeatedPtrField<std::string>& answers,
                                                              const char* field) const {
  // Where the verdict stands, a word may be another token than alone: it is read off behind an example.
  BEARING_ASSIGN_OR_RETURN(const std::string text, Render({"Hello.", "Hello, how are you?"}));
  const bool special = format_ == "raw";
  BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> before, tokenizer_->Encode(text, special));
  std::vector<int32_t> ids;
  for (const std::string& answer : answers) {
    BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> all, tokenizer_->Encode(text + answer, special));
    if (all.size() <= before.size() || !std::equal(before.begin(), before.end(), all.begin())) {
      return Wrong(field, Concat("merges with the end of the prompt into other tokens: answer=\"", answer, "\""));
    }
    const int32_t id = all[before.size()];
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  return ids;
}

}  // namespace bearing::jobs
