#include "worker/edit/part_journal.h"

#include <cinttypes>
#include <cstdio>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::edit {
namespace {

constexpr int64_t kMaxJournalBytes = int64_t{1} << 30;
constexpr size_t kLineBytes = 33;  // "PART CHECKSUM", 16 hex digits each.

std::optional<std::pair<size_t, uint64_t>> ParseLine(const std::string& line) {
  uint64_t part = 0;
  uint64_t checksum = 0;
  int end = 0;
  const bool whole = line.size() == kLineBytes && line.find_first_not_of("0123456789abcdef ") == std::string::npos &&
                     std::sscanf(line.c_str(), "%16" SCNx64 " %16" SCNx64 "%n", &part, &checksum, &end) == 2 &&
                     end == static_cast<int>(kLineBytes);
  if (!whole) return std::nullopt;
  return std::pair(static_cast<size_t>(part), checksum);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PartJournal>> PartJournal::Open(const std::string& path) {
  absl::StatusOr<sharding::FileDescriptor> file = sharding::OpenForWriting(path);
  if (absl::IsNotFound(file.status())) file = sharding::CreateNewFile(path);
  BEARING_RETURN_IF_ERROR(file.status());
  BEARING_ASSIGN_OR_RETURN(int64_t end, sharding::FileSize(*file, path));
  if (end > 0) {
    // Ends a line that was begun.
    BEARING_RETURN_IF_ERROR(sharding::WriteAt(*file, end, absl::MakeConstSpan("\n", 1), path));
    ++end;
  }
  return std::unique_ptr<PartJournal>(new PartJournal(*std::move(file), path, end));
}

absl::Status PartJournal::Add(size_t part, uint64_t checksum) {
  const std::string line = absl::StrFormat("%016x %016x\n", part, checksum);
  const std::lock_guard<std::mutex> lock(mutex_);
  BEARING_RETURN_IF_ERROR(sharding::WriteAt(file_, end_, line, path_));
  end_ += static_cast<int64_t>(line.size());
  return absl::OkStatus();
}

absl::StatusOr<std::map<size_t, uint64_t>> PartJournal::Read(const std::vector<std::string>& paths) {
  std::map<size_t, uint64_t> parts;
  for (const std::string& path : paths) {
    BEARING_ASSIGN_OR_RETURN(const std::string text, sharding::ReadWholeFile(path, kMaxJournalBytes));
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      if (const auto entry = ParseLine(std::string(line))) parts[entry->first] = entry->second;
    }
  }
  return parts;
}

}  // namespace bearing::edit
