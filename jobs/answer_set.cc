#include "jobs/answer_set.h"

#include <re2/re2.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "jobs/json_lines.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

using nlohmann::json;

std::string Stripped(std::string_view text) { return std::string(absl::StripAsciiWhitespace(AsAbsl(text))); }

// Digits with commas between them, at most one point; a sign that does not follow a letter or digit.
const RE2& NumberExpression() {
  static const auto* const expression = new RE2(R"((?:^|[^\w.])(-?)\$?(\d[\d,]*(?:\.\d+)?|\.\d+))");
  return *expression;
}

std::string OneSpelling(std::string_view sign, std::string_view number) {
  std::string digits(number);
  digits.erase(std::remove(digits.begin(), digits.end(), ','), digits.end());
  const std::string_view all = digits;
  const size_t point = std::min(all.find('.'), all.size());
  std::string_view whole = all.substr(0, point);
  std::string_view fraction = all.substr(std::min(point + 1, all.size()));
  while (whole.starts_with('0')) whole.remove_prefix(1);
  while (fraction.ends_with('0')) fraction.remove_suffix(1);
  const bool is_zero = whole.empty() && fraction.empty();
  return Concat(is_zero ? std::string_view() : sign, whole.empty() ? std::string_view("0") : whole,
                fraction.empty() ? std::string_view() : std::string_view("."), fraction);
}

// Calls use(groups) for each match of `expression`, from the first on; groups[0] is the whole match.
template <size_t kGroups, typename Use>
void ForEachMatch(const RE2& expression, std::string_view text, const Use& use) {
  const re2::StringPiece whole(text.data(), text.size());
  re2::StringPiece groups[kGroups];
  size_t at = 0;
  while (at <= whole.size() && expression.Match(whole, at, whole.size(), RE2::UNANCHORED, groups, kGroups)) {
    use(groups);
    const size_t end = static_cast<size_t>(groups[0].data() - whole.data()) + groups[0].size();
    at = groups[0].empty() ? end + 1 : end;
  }
}

// The numbers of a text, in one spelling.
struct Ends {
  std::string first, last;  // Empty: none.
};
Ends NumbersOf(std::string_view text) {
  Ends ends;
  ForEachMatch<3>(NumberExpression(), text, [&](const re2::StringPiece* groups) {
    ends.last = OneSpelling({groups[1].data(), groups[1].size()}, {groups[2].data(), groups[2].size()});
    if (ends.first.empty()) ends.first = ends.last;
  });
  return ends;
}

}  // namespace

absl::StatusOr<std::vector<AnswerItem>> LoadAnswers(const std::string& path, int count) {
  std::vector<AnswerItem> items;
  BEARING_RETURN_IF_ERROR(ForEachJsonLine(path, count, [&](const std::string& where, const json& object) -> absl::Status {
    AnswerItem item;
    BEARING_ASSIGN_OR_RETURN(item.question, TextAt(where, object, "question"));
    if (const auto answer = object.find("answer"); answer != object.end() && answer->is_number()) {
      item.answer = answer->dump();
    } else {
      BEARING_ASSIGN_OR_RETURN(item.answer, TextAt(where, object, "answer"));
    }
    items.push_back(std::move(item));
    return absl::OkStatus();
  }));
  return items;
}

std::string ExtractNumber(std::string_view text) {
  const size_t mark = text.rfind("####");
  if (mark != std::string_view::npos) {
    std::string found = NumbersOf(text.substr(mark + 4)).first;
    if (!found.empty()) return found;
  }
  return NumbersOf(text).last;
}

absl::StatusOr<AnswerPattern> AnswerPattern::Parse(const std::string& pattern) {
  AnswerPattern parsed;
  if (pattern.empty()) return parsed;
  RE2::Options options;
  options.set_log_errors(false);
  auto expression = std::make_shared<const RE2>(pattern, options);
  if (!expression->ok()) {
    return absl::InvalidArgumentError(Concat("not a regular expression (RE2): ", expression->error()));
  }
  parsed.expression_ = std::move(expression);
  return parsed;
}

std::string AnswerPattern::Extract(std::string_view text) const {
  if (expression_ == nullptr) return ExtractNumber(text);
  const size_t wanted = expression_->NumberOfCapturingGroups() > 0 ? 1 : 0;
  std::string last;
  ForEachMatch<2>(*expression_, text, [&](const re2::StringPiece* groups) {
    last = Stripped({groups[wanted].data(), groups[wanted].size()});
  });
  return last;
}

std::string AnswerPattern::Expected(std::string_view answer) const {
  const std::string found = Extract(answer);
  return found.empty() ? Stripped(answer) : found;
}

}  // namespace bearing::jobs
