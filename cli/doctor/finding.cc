#include "cli/doctor/finding.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "cli/output.h"

namespace bearing::cli {
namespace {

constexpr size_t kLongest = 300;

const char* Name(Finding::Result result) {
  switch (result) {
    case Finding::Result::kOk:
      return "ok";
    case Finding::Result::kWarning:
      return "warning";
    case Finding::Result::kBroken:
      return "broken";
    case Finding::Result::kSkipped:
      return "skipped";
  }
  return "";
}

}  // namespace

std::string FormatFindings(const std::vector<Finding>& findings) {
  std::vector<std::vector<std::string>> rows = {{"CHECK", "RESULT", "FOUND"}};
  for (const Finding& finding : findings) rows.push_back({finding.check, Name(finding.result), finding.found});
  std::string text = FormatTable(rows);
  bool first = true;
  for (const Finding& finding : findings) {
    if (finding.mend.empty()) continue;
    absl::StrAppend(&text, first ? "\nTo mend:\n" : "", "  ", finding.check, ": ", finding.mend, "\n");
    first = false;
  }
  return text;
}

nlohmann::json FindingsJson(const std::vector<Finding>& findings) {
  nlohmann::json checks = nlohmann::json::array();
  for (const Finding& finding : findings) {
    checks.push_back(
        {{"check", finding.check}, {"result", Name(finding.result)}, {"found", finding.found}, {"mend", finding.mend}});
  }
  return {{"ok", !AnyBroken(findings)}, {"checks", checks}};
}

bool AnyBroken(const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& finding) { return finding.result == Finding::Result::kBroken; });
}

std::string OneLine(const std::string& text) {
  std::string line;
  for (const char c : text) {
    const bool printable = c >= ' ' && c <= '~';
    if (printable) line.push_back(c);
    if (!printable && !line.empty() && line.back() != ' ') line.push_back(' ');
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  if (line.size() > kLongest) line = line.substr(0, kLongest) + "...";
  return line;
}

}  // namespace bearing::cli
