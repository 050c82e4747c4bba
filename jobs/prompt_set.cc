#include "jobs/prompt_set.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "jobs/artifacts.h"
#include "jobs/did_you_mean.h"
#include "jobs/prompt_csv.h"
#include "jobs/utf8.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

using nlohmann::json;
using Prompts = absl::StatusOr<std::vector<Prompt>>;

constexpr size_t kMaxPrompts = 200000;
constexpr char kInstruction[] = "instruction";

// What published sets call the prompt and its category, most specific first: AdvBench has "goal"; JailbreakBench "Goal", beside
// a "Behavior" that is only a title; HarmBench "Behavior" and "SemanticCategory"; StrongREJECT "forbidden_prompt"; XSTest
// "prompt".
constexpr const char* kInstructionNames[] = {"goal", "behavior", "forbidden_prompt", "prompt"};
constexpr const char* kCategoryNames[] = {"category", "SemanticCategory", "FunctionalCategory"};

// The first of `known` that is among `names`, in any case; names.end() when none is.
template <typename Known>
std::vector<std::string>::const_iterator FindKnown(const std::vector<std::string>& names, const Known& known) {
  for (const char* name : known) {
    const auto found =
        std::find_if(names.begin(), names.end(), [&](const std::string& other) { return absl::EqualsIgnoreCase(other, name); });
    if (found != names.end()) return found;
  }
  return names.end();
}

// Which name holds the prompt: `column`, or a known one where the default is asked for and not there.
std::vector<std::string>::const_iterator FindInstruction(const std::vector<std::string>& names, const std::string& column) {
  const auto exact = std::find(names.begin(), names.end(), column);
  return exact != names.end() || column != kInstruction ? exact : FindKnown(names, kInstructionNames);
}

std::string Extension(const std::string& path) {
  return absl::AsciiStrToLower(std::filesystem::path(path).extension().string());
}

absl::Status Error(const std::string& where, std::string_view message) {
  return absl::InvalidArgumentError(Concat(where, ": ", message));
}

absl::Status MissingColumn(const std::string& where, std::string_view kind, const std::string& column,
                           const std::vector<std::string>& names) {
  const std::string nearest = NearestName(column, names);
  const std::string hint = nearest.empty() ? "" : Concat("; did you mean \"", nearest, "\"?");
  return Error(where, Concat("no ", kind, " \"", column, "\", found ", absl::StrJoin(names, ", "), hint));
}

absl::StatusOr<Prompt> Checked(const std::string& where, Prompt prompt) {
  if (absl::StripAsciiWhitespace(prompt.instruction).empty()) return Error(where, "the prompt is empty");
  return prompt;
}

// One element of a list, or one line of a .jsonl file.
absl::StatusOr<Prompt> FromJson(const std::string& where, const json& element, const std::string& column) {
  if (element.is_string()) return Checked(where, {element.get<std::string>(), ""});
  if (!element.is_object()) return Error(where, Concat("expected a string or an object, found ", element.type_name()));
  std::vector<std::string> keys;
  for (const auto& item : element.items()) keys.push_back(item.key());
  const auto key = FindInstruction(keys, column);
  if (key == keys.end()) return MissingColumn(where, "key", column, keys);
  const json& text = element[*key];
  if (!text.is_string()) return Error(where, Concat("key \"", *key, "\" must be a string, found ", text.type_name()));
  const auto category = FindKnown(keys, kCategoryNames);
  const bool has_category = category != keys.end() && category != key && element[*category].is_string();
  return Checked(where, {text.get<std::string>(), has_category ? element[*category].get<std::string>() : ""});
}

absl::StatusOr<json> ParseJson(const std::string& path, std::string_view text, size_t first_line) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& e) {
    const size_t offset = e.byte == 0 ? 0 : e.byte - 1;
    return Error(Concat(path, ":", first_line + LineOfOffset(text, offset) - 1), "not valid JSON");
  } catch (const json::exception& e) {
    return Error(Concat(path, ":", first_line), Concat("not valid JSON: ", e.what()));
  }
}

Prompts ReadJson(const std::string& path, std::string_view text, const std::string& column) {
  BEARING_ASSIGN_OR_RETURN(json list, ParseJson(path, text, 1));
  if (!list.is_array()) return Error(path, Concat("expected a list of prompts, found ", list.type_name()));
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < list.size(); ++i) {
    BEARING_ASSIGN_OR_RETURN(Prompt prompt, FromJson(Concat(path, ": element ", i + 1), list[i], column));
    prompts.push_back(std::move(prompt));
    list[i] = nullptr;  // The texts are not held twice.
  }
  return prompts;
}

// Calls use(line number, line) for each line that is not blank. A CR before the LF is not part of the line.
template <typename Use>
absl::Status ForEachLine(std::string_view text, Use use) {
  size_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (absl::StripAsciiWhitespace(AsAbsl(line)).empty()) continue;
    BEARING_RETURN_IF_ERROR(use(number, line));
  }
  return absl::OkStatus();
}

Prompts ReadJsonLines(const std::string& path, std::string_view text, const std::string& column) {
  std::vector<Prompt> prompts;
  BEARING_RETURN_IF_ERROR(ForEachLine(text, [&](size_t number, std::string_view line) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(const json element, ParseJson(path, line, number));
    BEARING_ASSIGN_OR_RETURN(Prompt prompt, FromJson(Concat(path, ":", number), element, column));
    prompts.push_back(std::move(prompt));
    return absl::OkStatus();
  }));
  return prompts;
}

Prompts ReadText(const std::string& path, std::string_view text) {
  std::vector<Prompt> prompts;
  BEARING_RETURN_IF_ERROR(ForEachLine(text, [&](size_t, std::string_view line) {
    prompts.push_back({std::string(line), ""});
    return absl::OkStatus();
  }));
  return prompts;
}

Prompts ReadCsv(const std::string& path, std::string_view text, const std::string& column) {
  absl::StatusOr<std::vector<CsvRecord>> records = ParseCsv(text);
  if (!records.ok()) return Error(path, std::string(records.status().message()));
  if (records->empty()) return Error(path, "the file is empty; its first line must name the columns");
  const std::vector<std::string>& names = records->front().fields;
  if (std::set<std::string>(names.begin(), names.end()).size() != names.size()) {
    return Error(Concat(path, ":1"), "two columns have the same name");
  }
  const auto wanted = FindInstruction(names, column);
  if (wanted == names.end()) return MissingColumn(Concat(path, ":1"), "column", column, names);
  auto category = FindKnown(names, kCategoryNames);
  if (category == wanted) category = names.end();
  std::vector<Prompt> prompts;
  for (size_t i = 1; i < records->size(); ++i) {
    std::vector<std::string>& fields = (*records)[i].fields;
    Prompt prompt;
    prompt.instruction = std::move(fields[wanted - names.begin()]);
    if (category != names.end()) prompt.category = std::move(fields[category - names.begin()]);
    BEARING_ASSIGN_OR_RETURN(prompt, Checked(Concat(path, ":", (*records)[i].line), std::move(prompt)));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

Prompts ReadFormat(const std::string& path, std::string_view text, const std::string& column) {
  const std::string extension = Extension(path);
  if (extension == ".json") return ReadJson(path, text, column);
  if (extension == ".jsonl") return ReadJsonLines(path, text, column);
  if (extension == ".csv") return ReadCsv(path, text, column);
  return ReadText(path, text);
}

}  // namespace

bool IsPromptFormat(const std::string& path) {
  const std::string extension = Extension(path);
  return extension == ".json" || extension == ".jsonl" || extension == ".csv" || extension == ".txt";
}

absl::StatusOr<std::vector<Prompt>> LoadPrompts(const std::string& path, const std::string& column, int count) {
  if (!IsPromptFormat(path)) return Error(path, "prompts come as .json, .jsonl, .csv or .txt");
  if (count < 0) return Error(path, Concat("the count must be 0 (all) or more, found ", count));
  BEARING_ASSIGN_OR_RETURN(const std::string content, ReadInput(path));
  std::string_view text = content;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (const size_t bad = FirstInvalidUtf8(text); bad != std::string_view::npos) {
    return Error(Concat(path, ":", LineOfOffset(text, bad)), "the file is not valid UTF-8");
  }
  BEARING_ASSIGN_OR_RETURN(std::vector<Prompt> prompts, ReadFormat(path, text, column.empty() ? "instruction" : column));
  if (prompts.empty()) return Error(path, "the file has no prompts");
  if (prompts.size() > kMaxPrompts) {
    return Error(path, Concat("too many prompts: found=", prompts.size(), " at most=", kMaxPrompts));
  }
  if (count > 0) {
    const size_t wanted = static_cast<size_t>(count);
    if (prompts.size() < wanted) {
      return Error(path, Concat("fewer prompts than asked for: found=", prompts.size(), " count=", count));
    }
    prompts.resize(wanted);
  }
  return prompts;
}

}  // namespace bearing::jobs
