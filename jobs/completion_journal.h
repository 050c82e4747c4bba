// Completions as they finish: one JSON object a line, appended by each replica to a file of its own below .bearing/evaluate/,
// so that nothing is lost when a job is interrupted, and people can watch. What a line holds: docs/formats.md.
//
// A line counts when it is whole. A row may be there twice (it was finished again after an interruption); the last one counts.
#ifndef BEARING_JOBS_COMPLETION_JOURNAL_H_
#define BEARING_JOBS_COMPLETION_JOURNAL_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sharding/posix_file.h"

namespace bearing::jobs {

// A completion of prompt `row` under the condition (side and intervention) of that number.
struct CompletionRecord {
  int condition = 0;
  int64_t row = 0;
  std::string side, intervention;  // Of the condition, for people.
  std::string response;
  std::string finish;  // "end", "stop", "length"
  int64_t tokens = 0;
  double metric = 0;
};

// Appends. Not thread-safe. Errors are kept: see status().
class CompletionWriter {
 public:
  // Opens or creates `path`; an unfinished last line is ended, so that it does not count.
  static absl::StatusOr<std::unique_ptr<CompletionWriter>> Open(const std::string& path);

  // Written at once, made durable within about a second of more lines, and by Sync.
  void Add(const CompletionRecord& record);
  void Sync();

  // The first error.
  const absl::Status& status() const { return status_; }

 private:
  std::string path_;
  sharding::FileDescriptor file_;
  int64_t size_ = 0;
  std::chrono::steady_clock::time_point synced_ = std::chrono::steady_clock::now();
  absl::Status status_;
};

// Where each row lies: 16 bytes a row, the texts stay on disk. Not thread-safe.
class CompletionIndex {
 public:
  // Of every line of `files` (in this order) that is a completion of one of `rows[condition]` rows; other lines are passed
  // over. Files that are not there have none. Errors of reading.
  static absl::StatusOr<CompletionIndex> Read(const std::vector<std::string>& files, const std::vector<int64_t>& rows);

  bool Has(int condition, int64_t row) const { return places_[condition][row].file >= 0; }
  int64_t found() const { return found_; }

  // DataLoss when the file has changed since.
  absl::StatusOr<CompletionRecord> Get(int condition, int64_t row) const;

 private:
  struct Place {
    int32_t file = -1;
    uint32_t length = 0;
    int64_t offset = 0;
  };
  std::vector<std::string> files_;
  std::vector<sharding::FileDescriptor> open_;
  std::vector<std::vector<Place>> places_;
  int64_t found_ = 0;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_COMPLETION_JOURNAL_H_
