// trials.jsonl: the journal of a search, by which it goes on where it was interrupted. The first line says which search it is,
// each other one is a trial, or the completions of a point (docs/formats.md). A line is written when its generation is scored.
// Used by rank 0 alone; not thread-safe.
#ifndef BEARING_WORKER_SEARCH_SEARCH_JOURNAL_H_
#define BEARING_WORKER_SEARCH_SEARCH_JOURNAL_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bearing::worker {

class SearchJournal {
 public:
  // Opens the journal for the search that `key` (an object) tells from others, or makes it. A last line that was cut off is
  // dropped. AlreadyExists when the journal is of another search, saying which key differs; DataLoss naming the line for one
  // that is none.
  static absl::StatusOr<SearchJournal> Open(const std::string& path, const nlohmann::json& key);

  // What is recorded of trial `number`, or null; and of the completions of a trial (-1: of the model as it is).
  const nlohmann::json* Trial(int64_t number) const { return Find(trials_, number); }
  const nlohmann::json* Completions(int64_t trial) const { return Find(completions_, trial); }

  // Appends lines (objects with "trial", or with "completions_of") and syncs them to disk.
  absl::Status Append(absl::Span<const nlohmann::json> lines);

 private:
  static const nlohmann::json* Find(const std::map<int64_t, nlohmann::json>& map, int64_t key) {
    const auto found = map.find(key);
    return found != map.end() ? &found->second : nullptr;
  }
  absl::Status Take(const nlohmann::json& line, int64_t number);

  std::string path_;
  std::map<int64_t, nlohmann::json> trials_, completions_;
};

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SEARCH_SEARCH_JOURNAL_H_
