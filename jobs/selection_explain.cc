#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "jobs/selection.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The nearest round number that is not below `value`, with two significant digits.
double RoundUp(double value) {
  if (value == 0) return 0;
  const double unit = std::pow(10.0, std::floor(std::log10(std::fabs(value))) - 1);
  return std::ceil(value / unit - 1e-9) * unit;
}

double RoundDown(double value) { return -RoundUp(-value); }

// The largest prune_layers of two decimals that leaves `layer` in.
double LargestShareWith(int layer, SelectionRule rule) {
  for (int hundredths = 99; hundredths > 0; --hundredths) {
    rule.prune_layers = hundredths / 100.0;
    if (rule.first_pruned_layer() > layer) return rule.prune_layers;
  }
  return 0;
}

std::string At(const Candidate& candidate) { return Concat("layer ", candidate.layer, ", position ", candidate.position); }

// Is `reason` all that is known against the candidate? `without` is the rule with that one threshold lifted. Tests after the
// failed one may not have been run.
bool FailsOnly(const Candidate& candidate, Discard reason, const SelectionRule& rule, const SelectionRule& without) {
  if (Classify(candidate, rule) != reason) return false;
  const Discard left = Classify(candidate, without);
  return left == Discard::kNone || left == Discard::kNotScored;
}

const Candidate* Nearest(const std::vector<Candidate>& candidates, Discard reason, const SelectionRule& rule,
                         const SelectionRule& without, const std::function<double(const Candidate&)>& excess) {
  const Candidate* nearest = nullptr;
  for (const Candidate& candidate : candidates) {
    if (!FailsOnly(candidate, reason, rule, without)) continue;
    if (nearest == nullptr || excess(candidate) < excess(*nearest)) nearest = &candidate;
  }
  return nearest;
}

std::string Unscored(const Candidate& candidate) {
  std::vector<std::string> names;
  if (!candidate.kl.has_value()) names.push_back("KL");
  if (!candidate.bypass.has_value()) names.push_back("bypass");
  return names.empty() ? "" : Concat(" (", absl::StrJoin(names, " and "), " not scored)");
}

}  // namespace

std::string ExplainNoneSelected(const std::vector<Candidate>& candidates, const SelectionRule& rule) {
  const Selection selection = Select(candidates, rule);
  std::vector<std::string> counts;
  for (const auto& [name, count] : selection.discarded) counts.push_back(Concat(count, " by ", name));
  std::string text = Concat("no candidate passes: considered=", selection.considered,
                            " discarded=", counts.empty() ? "none" : absl::StrJoin(counts, ", "), ".");

  SelectionRule any_kl = rule;
  any_kl.kl_max = kInfinity;
  if (const Candidate* best = Nearest(candidates, Discard::kKl, rule, any_kl, [](const Candidate& c) { return *c.kl; })) {
    absl::StrAppendFormat(
        &text, " Nearest by KL: %s has KL %.4g, select.kl_max is %g%s; select.kl_max: %g would let it through this test.",
        At(*best), *best->kl, rule.kl_max, Unscored(*best), RoundUp(*best->kl));
  }
  SelectionRule any_induce = rule;
  any_induce.induce_min = -kInfinity;
  if (const Candidate* best =
          Nearest(candidates, Discard::kInduce, rule, any_induce, [](const Candidate& c) { return -*c.induce; })) {
    absl::StrAppendFormat(&text,
                          " Nearest by induce: %s has induce %.4g, select.induce_min is %g%s; select.induce_min: %g would let "
                          "it through this test.",
                          At(*best), *best->induce, rule.induce_min, Unscored(*best), RoundDown(*best->induce));
  }
  SelectionRule all_layers = rule;
  all_layers.prune_layers = 0;
  if (const Candidate* best = Nearest(candidates, Discard::kPrunedLayer, rule, all_layers,
                                      [](const Candidate& c) { return static_cast<double>(c.layer); })) {
    const double share = LargestShareWith(best->layer, rule);
    absl::StrAppendFormat(
        &text,
        " Nearest pruned layer: %s, select.prune_layers %g leaves out layers from %d on%s; select.prune_layers: "
        "%g would let it in.",
        At(*best), rule.prune_layers, rule.first_pruned_layer(), Unscored(*best), share);
  }
  absl::StrAppend(&text, " select.when_none_passes: relax_kl or relax_induce takes the best of the rest.");
  return text;
}

}  // namespace bearing::jobs
