// The text of a new job file: every setting of common use with what it does, those left at their default commented out.
#ifndef BEARING_CLI_JOB_TEMPLATE_H_
#define BEARING_CLI_JOB_TEMPLATE_H_

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace bearing::cli {

struct StarterFile {
  const char* name;  // "positive_train.json"
  std::string_view (*content)();
};

// Requests in French (positive) against requests in English: examples/prompts/language.
std::array<StarterFile, 6> StarterFiles();

struct JobTemplate {
  std::string file;  // Name of the file, for the first comment.
  std::string name;
  std::string model;
  std::string concept_name;
  std::vector<std::string> markers;
  std::array<std::string, 6> prompts;  // Positive before negative; train, validation, test: as they stand in the file.
  bool starter = false;                // The prompts are StarterFiles().
  std::vector<std::string> forms;      // Empty: the default.
  bool edit = true;
  bool costs = false;
  std::string output;
  int ranks = 2;
};

std::string JobFileText(const JobTemplate& job);

}  // namespace bearing::cli

#endif  // BEARING_CLI_JOB_TEMPLATE_H_
