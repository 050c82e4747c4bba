#include "coordinator/page_token.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace bearing::coordinator {

std::string MakePageToken(bearing::v1::JobState filter, int64_t before_id) {
  return absl::WebSafeBase64Escape(absl::StrCat("1/", static_cast<int>(filter), "/", before_id));
}

absl::StatusOr<int64_t> ParsePageToken(const std::string& token, bearing::v1::JobState filter) {
  if (token.empty()) return 0;
  std::string text;
  int state = 0;
  int64_t before_id = 0;
  std::vector<std::string> parts;
  if (absl::WebSafeBase64Unescape(token, &text)) parts = absl::StrSplit(text, '/');
  if (parts.size() != 3 || parts[0] != "1" || !absl::SimpleAtoi(parts[1], &state) || !absl::SimpleAtoi(parts[2], &before_id) ||
      before_id <= 0) {
    return absl::InvalidArgumentError("page_token: not a token of this server; start from the first page");
  }
  if (state != static_cast<int>(filter)) {
    return absl::InvalidArgumentError("page_token: belongs to a list with another state filter; start from the first page");
  }
  return before_id;
}

}  // namespace bearing::coordinator
