#include "jobs/choice_set.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "jobs/json_lines.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

using nlohmann::json;

absl::StatusOr<size_t> AnswerOf(const std::string& where, const json& object, size_t choices) {
  const auto found = object.find("answer");
  if (found == object.end()) return absl::InvalidArgumentError(where + ": no key \"answer\"");
  size_t index = choices;
  if (found->is_number_unsigned()) {
    index = found->get<size_t>();
  } else if (found->is_string() && found->get_ref<const std::string&>().size() == 1) {
    const char letter = absl::ascii_toupper(found->get_ref<const std::string&>()[0]);
    if (letter >= 'A' && letter <= 'Z') index = static_cast<size_t>(letter - 'A');
  }
  if (index < choices) return index;
  return absl::InvalidArgumentError(Concat(where, ": key \"answer\" must be an index of 0 to ", choices - 1,
                                           " or a letter of A to ", std::string(1, static_cast<char>('A' + choices - 1)),
                                           ", found ", found->dump()));
}

// Characters as Python counts them.
double CodePoints(const std::string& text) {
  return static_cast<double>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

absl::StatusOr<std::vector<ChoiceItem>> LoadChoices(const std::string& path, int count) {
  constexpr size_t kMaxChoices = 26;
  std::vector<ChoiceItem> items;
  BEARING_RETURN_IF_ERROR(ForEachJsonLine(path, count, [&](const std::string& where, const json& object) -> absl::Status {
    ChoiceItem item;
    BEARING_ASSIGN_OR_RETURN(item.question, TextAt(where, object, "question"));
    const auto choices = object.find("choices");
    if (choices == object.end() || !choices->is_array() || choices->size() < 2 || choices->size() > kMaxChoices) {
      return absl::InvalidArgumentError(Concat(where, ": key \"choices\" must be a list of 2 to ", kMaxChoices, " texts"));
    }
    for (const json& choice : *choices) {
      if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) {
        return absl::InvalidArgumentError(where + ": a choice must be a text that is not empty");
      }
      item.choices.push_back(choice.get<std::string>());
    }
    BEARING_ASSIGN_OR_RETURN(item.answer, AnswerOf(where, object, item.choices.size()));
    items.push_back(std::move(item));
    return absl::OkStatus();
  }));
  return items;
}

ChoiceText JoinChoice(const std::string& question, const std::string& delimiter, const std::string& choice) {
  const size_t end = absl::StripTrailingAsciiWhitespace(question).size();
  return {question.substr(0, end), Concat(question.substr(end), delimiter, choice)};
}

size_t BestChoice(const std::vector<double>& log_likelihoods) {
  return static_cast<size_t>(std::max_element(log_likelihoods.begin(), log_likelihoods.end()) - log_likelihoods.begin());
}

size_t BestNormalizedChoice(const std::vector<double>& log_likelihoods, const std::vector<std::string>& choices) {
  std::vector<double> normalized;
  for (size_t i = 0; i < choices.size(); ++i) normalized.push_back(log_likelihoods[i] / CodePoints(choices[i]));
  return BestChoice(normalized);
}

}  // namespace bearing::jobs
