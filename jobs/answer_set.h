// Questions with one right answer that a completion must end in (as GSM8K), and what counts as the answer of a text.
#ifndef BEARING_JOBS_ANSWER_SET_H_
#define BEARING_JOBS_ANSWER_SET_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace re2 {
class RE2;
}

namespace bearing::jobs {

struct AnswerItem {
  std::string question;
  std::string answer;  // May be a whole solution: the same extraction is applied to it.
};

// JSON lines with question and answer (texts, or a number as the answer). InvalidArgument with file and line.
absl::StatusOr<std::vector<AnswerItem>> LoadAnswers(const std::string& path, int count);

// The first number behind the last "####" of `text`; where there is none, the last number of all. In one spelling: without
// dollar signs, thousands commas, leading zeros, zeros at the end of a fraction, and "-0". Empty: no number.
std::string ExtractNumber(std::string_view text);

// What is taken out of a text. Thread-safe.
class AnswerPattern {
 public:
  // An empty pattern is ExtractNumber. InvalidArgument saying what is wrong with the expression.
  static absl::StatusOr<AnswerPattern> Parse(const std::string& pattern);

  // The last match, of it the first group if there is one, without white space at its ends. Empty: no match.
  std::string Extract(std::string_view text) const;

  // The right answer of an item: what is extracted, or the whole text where the pattern does not match it.
  std::string Expected(std::string_view answer) const;

 private:
  std::shared_ptr<const re2::RE2> expression_;  // Null: numbers.
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_ANSWER_SET_H_
