#include "coordinator/log_format.h"

#include <spdlog/pattern_formatter.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace bearing::coordinator {
namespace {

// What the line is about, as fields of their own: the words "job=NAME" and so on of the message.
void AddFields(const std::string& message, nlohmann::json* line) {
  static const std::set<std::string> known = {"job", "attempt", "group", "rank", "state", "reason"};
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(message, ' '))) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals + 1 == word.size() || !known.contains(word.substr(0, equals))) continue;
    int64_t number = 0;
    const std::string value = word.substr(equals + 1);
    if (absl::SimpleAtoi(value, &number)) {
      (*line)[word.substr(0, equals)] = number;
    } else {
      (*line)[word.substr(0, equals)] = value;
    }
  }
}

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    nlohmann::json line;
    line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(message.time), absl::UTCTimeZone());
    const auto level = spdlog::level::to_string_view(message.level);
    line["level"] = std::string(level.data(), level.size());
    const std::string text_of_line(message.payload.data(), message.payload.size());
    line["message"] = text_of_line;
    AddFields(text_of_line, &line);
    // Bytes that are not UTF-8 are replaced, not thrown about.
    const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

}  // namespace

std::unique_ptr<spdlog::formatter> MakeLogFormatter(LogFormat format) {
  if (format == LogFormat::kJson) return std::make_unique<JsonFormatter>();
  return std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
}

}  // namespace bearing::coordinator
