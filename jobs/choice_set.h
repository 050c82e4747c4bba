// Multiple-choice questions, and which choice a model takes.
#ifndef BEARING_JOBS_CHOICE_SET_H_
#define BEARING_JOBS_CHOICE_SET_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::jobs {

struct ChoiceItem {
  std::string question;
  std::vector<std::string> choices;  // At least 2.
  size_t answer = 0;                 // Index of the right one.
};

// JSON lines with question, choices (a list of texts) and answer (an index from 0, or a letter: A is the first).
// InvalidArgument with file and line.
absl::StatusOr<std::vector<ChoiceItem>> LoadChoices(const std::string& path, int count);

// Question and choice as they are tokenized: spaces at the end of the question go to the choice, as in lm-evaluation-harness.
struct ChoiceText {
  std::string context;
  std::string continuation;
};
ChoiceText JoinChoice(const std::string& question, const std::string& delimiter, const std::string& choice);

// The choice with the largest log-likelihood (acc), and with the largest per character of the choice (acc_norm), characters
// being code points and without the delimiter; the first on ties. As lm-evaluation-harness defines both.
size_t BestChoice(const std::vector<double>& log_likelihoods);
size_t BestNormalizedChoice(const std::vector<double>& log_likelihoods, const std::vector<std::string>& choices);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_CHOICE_SET_H_
