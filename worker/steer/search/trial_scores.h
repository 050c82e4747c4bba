// How trials of a search do on the validation prompts: the first-token metric of the positive ones, the KL of the negative
// ones. All trials that are scored together share forward passes. A screen takes a few prompts; a trial that passes it is
// completed with the others, so that nothing runs twice.
#ifndef BEARING_WORKER_STEER_SEARCH_TRIAL_SCORES_H_
#define BEARING_WORKER_STEER_SEARCH_TRIAL_SCORES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/intervention.h"
#include "worker/steer/candidate_scores.h"

namespace bearing::steer {

// Means over prompts.
struct TrialScore {
  double probability = 0;  // Of the concept's tokens, at the first token of the answer to a positive prompt.
  double metric = 0;       // Its log-odds, as concept_metric.h defines them.
  double kl = 0;           // Of the first token of the answer to a negative prompt.
  int64_t positives = 0;   // Prompts that are in the means.
  int64_t negatives = 0;
};

class TrialScorer {
 public:
  // `screen`: prompts of each side in a screen, taken evenly from all of them. Both sides have prompts; `replicas` outlives
  // this. `budget`: tokens a forward pass.
  TrialScorer(Replicas& replicas, const Rows& positive, const Rows& negative, int64_t screen,
              const std::vector<int32_t>& metric_tokens, int64_t budget);
  TrialScorer(const TrialScorer&) = delete;
  TrialScorer& operator=(const TrialScorer&) = delete;

  // What follows is collective over all replicas, with the same scores on every rank.

  // Before the others. The score of all prompts without an intervention: its KL is 0.
  absl::StatusOr<TrialScore> RunBaseline(const Replicas::Progress& progress = {});

  using Scores = absl::StatusOr<std::vector<TrialScore>>;
  Scores Screen(absl::Span<const model::Intervention> trials, const Replicas::Progress& progress = {});
  // Scores on all prompts of trials that were screened with these results.
  Scores Complete(absl::Span<const model::Intervention> trials, absl::Span<const TrialScore> screened,
                  const Replicas::Progress& progress = {});

 private:
  // Some of the prompts. A side may be empty.
  struct Part {
    Rows positive, negative;
    std::optional<CandidateScorer> scorer;  // Points to the rows above.
  };
  Scores Score(Part& part, absl::Span<const model::Intervention> trials, const Replicas::Progress& progress);

  Part screen_, rest_;
};

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_SEARCH_TRIAL_SCORES_H_
