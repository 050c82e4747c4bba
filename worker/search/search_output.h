// What a search leaves: search.json, search.html, search.safetensors and completions.jsonl (docs/formats.md). Rank 0.
#ifndef BEARING_WORKER_SEARCH_SEARCH_OUTPUT_H_
#define BEARING_WORKER_SEARCH_SEARCH_OUTPUT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/search/search_front.h"

namespace bearing::worker {

struct SearchResult {
  steer::TrialScore baseline;
  std::vector<Trial> trials;
  std::vector<SearchPoint> points;  // The model as it is, then the points.
  nlohmann::json key;               // What tells this search from others.
  double seconds = 0;               // Of this run of the command.
  double trial_seconds = 0;         // Of them, in trials.
  int64_t resumed_trials = 0;       // That the journal had.
};

absl::Status WriteSearch(const SearchInputs& inputs, const SearchOptions& options, const SearchSpace& space,
                         const SearchResult& result, const SearchJournal& journal);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SEARCH_SEARCH_OUTPUT_H_
