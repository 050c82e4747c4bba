#include "jobs/json_lines.h"

#include "absl/strings/ascii.h"
#include "jobs/artifacts.h"
#include "jobs/utf8.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {

using nlohmann::json;

absl::Status ForEachJsonLine(const std::string& path, int count,
                             const std::function<absl::Status(const std::string&, const json&)>& take) {
  BEARING_ASSIGN_OR_RETURN(const std::string content, ReadInput(path));
  std::string_view text = content;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (const size_t bad = FirstInvalidUtf8(text); bad != std::string_view::npos) {
    return absl::InvalidArgumentError(Concat(path, ":", LineOfOffset(text, bad), ": the file is not valid UTF-8"));
  }
  size_t number = 0;
  int taken = 0;
  while (!text.empty() && (count == 0 || taken < count)) {
    ++number;
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (absl::StripAsciiWhitespace(AsAbsl(line)).empty()) continue;
    const std::string where = Concat(path, ":", number);
    const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (object.is_discarded()) return absl::InvalidArgumentError(where + ": not valid JSON");
    if (!object.is_object()) {
      return absl::InvalidArgumentError(Concat(where, ": expected an object, found ", object.type_name()));
    }
    BEARING_RETURN_IF_ERROR(take(where, object));
    ++taken;
  }
  if (taken == 0) return absl::InvalidArgumentError(path + ": the file has no items");
  if (taken < count) {
    return absl::InvalidArgumentError(Concat(path, ": fewer items than asked for: found=", taken, " count=", count));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> TextAt(const std::string& where, const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end()) return absl::InvalidArgumentError(Concat(where, ": no key \"", key, "\""));
  if (!found->is_string()) {
    return absl::InvalidArgumentError(Concat(where, ": key \"", key, "\" must be a string, found ", found->type_name()));
  }
  if (absl::StripAsciiWhitespace(found->get_ref<const std::string&>()).empty()) {
    return absl::InvalidArgumentError(Concat(where, ": key \"", key, "\" is blank"));
  }
  return found->get<std::string>();
}

}  // namespace bearing::jobs
