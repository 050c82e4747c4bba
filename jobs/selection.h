// The selection rule of Arditi et al. 2024 (section 2.3, appendix C) on a table of scored candidates.
//
// Discard a candidate when a score is NaN, layer >= int(L * (1 - prune_layers)), KL > kl_max, or induce < induce_min. Of the
// rest take the smallest bypass (the strongest loss of the concept under ablation); ties go to the earliest in table order:
// smallest position (most negative), then smallest layer.
#ifndef BEARING_JOBS_SELECTION_H_
#define BEARING_JOBS_SELECTION_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::jobs {

struct Candidate {
  int position = 0;  // Negative: -1 is the last token of the prompt.
  int layer = 0;     // Block whose input the direction was read at.
  double norm = 0;   // Norm of the mean difference.
  // nullopt: not scored (an earlier, cheaper test had failed already).
  std::optional<double> induce;  // Mean metric of negative prompts with the mean difference added. Higher is better.
  std::optional<double> kl;      // Mean KL(baseline || ablated) of negative prompts. Lower is better.
  std::optional<double> bypass;  // Mean metric of positive prompts under ablation. Lower is better.
};

// A mean difference with a norm of at most this share of the largest is zero, rounding aside: of template tokens that have seen
// no instruction, before the first attention or because a sliding window ends behind it.
inline constexpr double kZeroNormShare = 1e-5;

struct SelectionRule {
  double kl_max = 0.1;
  double induce_min = 0.0;
  double prune_layers = 0.2;
  int64_t num_layers = 0;
  // First layer that is pruned: int(L * (1 - prune_layers)).
  int64_t first_pruned_layer() const;
};

enum class Discard { kNone, kZeroNorm, kNotANumber, kPrunedLayer, kInduce, kKl, kNotScored };
const char* DiscardName(Discard reason);  // "", "zero_norm", "nan", "pruned_layer", "induce", "kl", "not_scored"

// Why a candidate is out under the rule, tested in the order of the enum; kNone = it stays.
Discard Classify(const Candidate& candidate, const SelectionRule& rule);

struct Selection {
  std::optional<size_t> selected;  // Index into the candidates.
  size_t considered = 0;
  size_t kept = 0;
  std::map<std::string, size_t> discarded;  // By DiscardName.
};

Selection Select(const std::vector<Candidate>& candidates, const SelectionRule& rule);

// Of the candidates that no rule but one threshold discards, how near the best came: text for the error when none passes,
// naming the threshold and the job-file setting that would let it through.
std::string ExplainNoneSelected(const std::vector<Candidate>& candidates, const SelectionRule& rule);

// All (position, layer) pairs in table order: positions -num_positions..-1, layers 0..num_layers-1 within each, restricted to
// `positions` and `layers` when these are not empty.
std::vector<Candidate> CandidateGrid(int num_positions, int num_layers, const std::vector<int>& positions,
                                     const std::vector<int>& layers);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_SELECTION_H_
