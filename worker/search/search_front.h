// The trials of a search and its front: which trials are completed with generated answers, and how often these show the
// concept.
#ifndef BEARING_WORKER_SEARCH_SEARCH_FRONT_H_
#define BEARING_WORKER_SEARCH_SEARCH_FRONT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/search/search_inputs.h"
#include "worker/search/search_journal.h"
#include "worker/search/search_space.h"
#include "worker/steer/replicas.h"
#include "worker/steer/search/pareto.h"
#include "worker/steer/search/trial_scores.h"

namespace bearing::worker {

struct Trial {
  int64_t generation = 0;
  steer::Point point;
  std::optional<steer::TrialScore> screen;  // None: the point is no removal, or a score was not a number.
  std::optional<steer::TrialScore> score;   // None: left out by the screen as well.
};

nlohmann::json TrialJson(int64_t number, const Trial& trial);
// DataLoss for what TrialJson did not write.
absl::StatusOr<Trial> TrialOf(const nlohmann::json& line);

// What the optimizer makes small: the concept's probability, and log(KL + 1/1000), so that a halved KL counts alike everywhere.
// None for a score that is not finite.
std::optional<steer::Objectives> ObjectivesOf(const std::optional<steer::TrialScore>& score);
// Beyond it nothing counts: the probability of the model as it is, and the largest KL of interest.
steer::Objectives ReferenceOf(const steer::TrialScore& baseline, double kl_cap);

// A trial with the answers to the positive prompts.
struct SearchPoint {
  int64_t trial = -1;  // -1: the model as it is.
  int64_t shown = 0;   // Answers that show the concept.
  int64_t answers = 0;
  bool on_front = false;  // No other point has fewer of them at no larger KL, or as many at a smaller one.

  double share() const { return answers > 0 ? static_cast<double>(shown) / static_cast<double>(answers) : 0; }
  double standard_error() const;
};

// The trials to complete: at most `count` of the front that together cover the most hypervolume, and trial 0 (the run's own
// direction, removed whole), by rising KL.
std::vector<int64_t> ChoosePoints(const std::vector<Trial>& trials, int64_t count, const steer::Objectives& reference);

// Generates the answers of the chosen trials and of the model as it is, in one running batch, and counts those with a marker of
// the concept. What the journal has is not generated again. The model's own come first in the result (rank 0; empty elsewhere),
// then the trials as they were given. Collective.
absl::StatusOr<std::vector<SearchPoint>> CompletePoints(SearchInputs& inputs, const SearchOptions& options,
                                                        const SearchSpace& space, const std::vector<Trial>& trials,
                                                        const std::vector<int64_t>& chosen, steer::Replicas& replicas,
                                                        SearchJournal* journal, const steer::Replicas::Progress& progress);

}  // namespace bearing::worker

#endif  // BEARING_WORKER_SEARCH_SEARCH_FRONT_H_
