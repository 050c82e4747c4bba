#include "sharding/side_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 12> kNames = {
    "added_tokens.json",        "chat_template.jinja",  "chat_template.json",      "config.json",    "merges.txt",
    "preprocessor_config.json", "vocab.json",           "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
    "generation_config.json",   "tokenizer_config.json"};

constexpr std::array<std::string_view, 3> kLegalPrefixes = {"LICENSE", "NOTICE", "USE_POLICY"};

constexpr std::string_view kTemplateFolder = "additional_chat_templates";

bool IsSideFile(std::string_view name) {
  if (std::find(kNames.begin(), kNames.end(), name) != kNames.end()) return true;
  return std::any_of(kLegalPrefixes.begin(), kLegalPrefixes.end(),
                     [name](std::string_view prefix) { return name.starts_with(prefix); });
}

// Names of the regular files (or links to such) in a folder; none when there is no such folder.
absl::StatusOr<std::vector<std::string>> RegularFiles(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator it(folder, error);
  if (error == std::errc::no_such_file_or_directory) return names;
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    std::error_code no_file;
    if (it->is_regular_file(no_file)) names.push_back(it->path().filename().string());
  }
  if (error) return absl::UnavailableError(Concat("cannot list folder: ", error.message(), " folder=", folder));
  return names;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FindSideFiles(const std::string& model_dir) {
  std::vector<std::string> found;
  BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> names, RegularFiles(model_dir));
  for (const std::string& name : names) {
    if (IsSideFile(name)) found.push_back(name);
  }
  BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> templates, RegularFiles(Concat(model_dir, "/", kTemplateFolder)));
  for (const std::string& name : templates) {
    if (name.ends_with(".jinja")) found.push_back(Concat(kTemplateFolder, "/", name));
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace bearing::sharding
