// Prompt files. Formats by extension: .json (a list of strings or of objects), .jsonl (a string or an object a line), .csv
// (RFC 4180, first line names the columns), .txt (a prompt a line, empty lines skipped). UTF-8 only.
#ifndef BEARING_JOBS_PROMPT_SET_H_
#define BEARING_JOBS_PROMPT_SET_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::jobs {

struct Prompt {
  std::string instruction;
  std::string category;  // Empty if the file has none.
};

// Is the extension of `path` one of the formats (in any case)?
bool IsPromptFormat(const std::string& path);

// `column` names the key or column with the prompt ("" = "instruction", or where that is missing what JailbreakBench,
// HarmBench, AdvBench, StrongREJECT and XSTest call it). `count` > 0 takes the first `count` and is an error if the file has
// fewer. NotFound / InvalidArgument with file and line (or element); an empty set is an error.
absl::StatusOr<std::vector<Prompt>> LoadPrompts(const std::string& path, const std::string& column, int count);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_PROMPT_SET_H_
