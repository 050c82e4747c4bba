#include "coordinator/page_token.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "jobs/artifacts.h"

namespace bearing::coordinator {

namespace {

// Short, and the same for equal filters.
std::string FilterMark(const JobFilter& filter) {
  std::string text = absl::StrCat(static_cast<int>(filter.state));
  for (const auto& [key, value] : filter.labels) absl::StrAppend(&text, "\n", key.size(), " ", key, "=", value);
  return filter.labels.empty() ? text : jobs::Sha256OfBytes(text).substr(0, 16);
}

}  // namespace

std::string MakePageToken(const JobFilter& filter, int64_t before_id) {
  return absl::WebSafeBase64Escape(absl::StrCat("1/", FilterMark(filter), "/", before_id));
}

absl::StatusOr<int64_t> ParsePageToken(const std::string& token, const JobFilter& filter) {
  if (token.empty()) return 0;
  std::string text;
  int64_t before_id = 0;
  std::vector<std::string> parts;
  if (absl::WebSafeBase64Unescape(token, &text)) parts = absl::StrSplit(text, '/');
  if (parts.size() != 3 || parts[0] != "1" || !absl::SimpleAtoi(parts[2], &before_id) || before_id <= 0) {
    return absl::InvalidArgumentError("page_token: not a token of this server; start from the first page");
  }
  if (parts[1] != FilterMark(filter)) {
    return absl::InvalidArgumentError("page_token: belongs to a list with another filter; start from the first page");
  }
  return before_id;
}

}  // namespace bearing::coordinator
