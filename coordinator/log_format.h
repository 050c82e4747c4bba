// Log lines: text for people, or one JSON object a line.
#ifndef BEARING_COORDINATOR_LOG_FORMAT_H_
#define BEARING_COORDINATOR_LOG_FORMAT_H_

#include <spdlog/formatter.h>

#include <memory>

namespace bearing::coordinator {

enum class LogFormat { kText, kJson };

// Text: "2025-01-31T12:00:00.000Z info message". JSON: {"level":...,"message":...,"time":...}, and job,
// attempt, group, rank, state and reason as fields where the message says job=NAME and so on.
std::unique_ptr<spdlog::formatter> MakeLogFormatter(LogFormat format);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_LOG_FORMAT_H_
