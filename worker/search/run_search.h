// `bearing search`: an optimizer over interventions. Many trials, each a removal with strengths of its own, share forward
// passes; screens come first; answers are generated for the front alone; no weight is changed (docs/search.md).
//
//   OUT/trials.jsonl          the journal: appended generation by generation, and what a search resumes from
//   OUT/completions.jsonl     answers of the points
//   OUT/search.safetensors    directions of the points
//   OUT/search.html           for people
//   OUT/search.json           points, trials and settings; written last
#ifndef BEARING_WORKER_SEARCH_RUN_SEARCH_H_
#define BEARING_WORKER_SEARCH_RUN_SEARCH_H_

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/search/search_inputs.h"

namespace bearing::worker {

// Collective; agreed errors.
absl::Status RunSearch(comm::Communicator& comm, const SearchOptions& options);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SEARCH_RUN_SEARCH_H_
