#include "worker/steer/intervention_scores.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "sharding/status_macros.h"
#include "worker/steer/concept_metric.h"

namespace bearing::steer {

ScoreTable::ScoreTable(size_t interventions, size_t rows)
    : table_CN_(at::zeros({static_cast<int64_t>(interventions), static_cast<int64_t>(rows)}, at::kDouble)) {}

void ScoreTable::Put(size_t intervention, size_t first_row, absl::Span<const double> scores) {
  std::copy(
      scores.begin(), scores.end(),
      table_CN_.data_ptr<double>() + static_cast<int64_t>(intervention) * table_CN_.size(1) + static_cast<int64_t>(first_row));
}

absl::StatusOr<at::Tensor> ScoreTable::Merge(const Replicas& replicas) {
  BEARING_RETURN_IF_ERROR(replicas.Sum(table_CN_));
  return table_CN_;
}

absl::StatusOr<at::Tensor> ScoreInterventions(Replicas& replicas, absl::Span<const model::Intervention> interventions,
                                              const RowBatcher& batcher, RowRange slab, int64_t budget, const RowScore& score,
                                              const Replicas::Progress& progress) {
  ScoreTable scores(interventions.size(), slab.size());
  if (interventions.empty() || slab.size() == 0) return scores.Merge(replicas);
  const model::Decoder& decoder = replicas.decoder();
  budget = replicas.Budget(budget, static_cast<int64_t>(interventions.size()) * batcher.TokensOf(slab));
  const std::vector<RowRange> ranges = batcher.Cut(slab, budget);
  struct Unit {
    size_t intervention;
    RowRange range;
  };
  std::vector<std::vector<Unit>> units;  // Of each pass.
  std::vector<model::Pass> passes;
  for (size_t c = 0; c < interventions.size(); ++c) {
    for (const RowRange range : ranges) {
      if (passes.empty() || passes.back().batch.num_tokens() + batcher.TokensOf(range) > budget) {
        passes.emplace_back();
        units.emplace_back();
      }
      std::vector<int> segments;
      batcher.AppendGroup(range, interventions[c], passes.back().batch, segments, passes.back().read);
      units.back().push_back({c, range});
    }
  }
  for (size_t i = 0; i < passes.size(); ++i) {
    passes[i].done = [&decoder, &units, &score, &scores, slab, i](const at::Tensor& last) -> absl::Status {
      BEARING_ASSIGN_OR_RETURN(const at::Tensor p, LocalProbabilities(decoder, last));
      int64_t row = 0;
      for (const Unit& unit : units[i]) {
        const auto n = static_cast<int64_t>(unit.range.size());
        BEARING_ASSIGN_OR_RETURN(const std::vector<double> of_rows, score(unit.range, p.narrow(0, row, n)));
        scores.Put(unit.intervention, unit.range.begin - slab.begin, of_rows);
        row += n;
      }
      return absl::OkStatus();
    };
  }
  BEARING_RETURN_IF_ERROR(replicas.Run(absl::MakeSpan(passes), Handout::kDrawn, progress));
  return scores.Merge(replicas);
}

}  // namespace bearing::steer
