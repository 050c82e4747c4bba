#include "jobs/selection.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace bearing::jobs {
namespace {

// Means of the same numbers summed in another order differ by rounding; such a difference is no direction.
constexpr double kZeroNorm = 1e-10;

bool IsBad(const std::optional<double>& score) { return score.has_value() && !std::isfinite(*score); }

template <typename Value>
bool Wanted(const std::vector<Value>& wanted, Value value) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}

}  // namespace

int64_t SelectionRule::first_pruned_layer() const {
  return static_cast<int64_t>(static_cast<double>(num_layers) * (1.0 - prune_layers));
}

const char* DiscardName(Discard reason) {
  switch (reason) {
    case Discard::kNone:
      return "";
    case Discard::kZeroNorm:
      return "zero_norm";
    case Discard::kNotANumber:
      return "nan";
    case Discard::kPrunedLayer:
      return "pruned_layer";
    case Discard::kInduce:
      return "induce";
    case Discard::kKl:
      return "kl";
    case Discard::kNotScored:
      return "not_scored";
  }
  return "";
}

Discard Classify(const Candidate& candidate, const SelectionRule& rule) {
  if (candidate.norm < kZeroNorm) return Discard::kZeroNorm;
  const bool bad = !std::isfinite(candidate.norm) || IsBad(candidate.induce) || IsBad(candidate.kl) || IsBad(candidate.bypass);
  if (bad) return Discard::kNotANumber;
  if (candidate.layer >= rule.first_pruned_layer()) return Discard::kPrunedLayer;
  if (candidate.induce.has_value() && *candidate.induce < rule.induce_min) return Discard::kInduce;
  if (candidate.kl.has_value() && *candidate.kl > rule.kl_max) return Discard::kKl;
  const bool complete = candidate.induce.has_value() && candidate.kl.has_value() && candidate.bypass.has_value();
  return complete ? Discard::kNone : Discard::kNotScored;
}

Selection Select(const std::vector<Candidate>& candidates, const SelectionRule& rule) {
  Selection result;
  result.considered = candidates.size();
  const auto key = [&](size_t i) { return std::tuple(*candidates[i].bypass, candidates[i].position, candidates[i].layer); };
  for (size_t i = 0; i < candidates.size(); ++i) {
    const Discard reason = Classify(candidates[i], rule);
    if (reason != Discard::kNone) {
      ++result.discarded[DiscardName(reason)];
      continue;
    }
    ++result.kept;
    if (!result.selected.has_value() || key(i) < key(*result.selected)) result.selected = i;
  }
  return result;
}

std::vector<Candidate> CandidateGrid(int num_positions, int num_layers, const std::vector<int>& positions,
                                     const std::vector<int>& layers) {
  std::vector<Candidate> grid;
  for (int position = -num_positions; position < 0; ++position) {
    if (!Wanted(positions, position)) continue;
    for (int layer = 0; layer < num_layers; ++layer) {
      if (!Wanted(layers, layer)) continue;
      Candidate candidate;
      candidate.position = position;
      candidate.layer = layer;
      grid.push_back(candidate);
    }
  }
  return grid;
}

}  // namespace bearing::jobs
