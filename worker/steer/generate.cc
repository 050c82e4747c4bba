#include "worker/steer/generate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "sharding/status_macros.h"
#include "worker/steer/wave.h"

namespace bearing::steer {
namespace {

using Batchers = std::vector<std::optional<RowBatcher>>;

Batchers MakeBatchers(const sharding::ModelConfig& config, absl::Span<const GenerationTask> tasks) {
  Batchers batchers(tasks.size());
  for (size_t t = 0; t < tasks.size(); ++t) {
    if (!tasks[t].rows->empty()) batchers[t].emplace(config, *tasks[t].rows, /*keep=*/1);
  }
  return batchers;
}

std::vector<WaveParts> CutWaves(const Batchers& batchers, int64_t budget, int64_t max_rows) {
  std::vector<WaveParts> waves;
  int64_t tokens = 0, rows = 0;  // Of the last wave.
  for (size_t t = 0; t < batchers.size(); ++t) {
    if (!batchers[t].has_value()) continue;
    for (const RowRange range : batchers[t]->Cut(budget, static_cast<size_t>(max_rows))) {
      const int64_t more = batchers[t]->TokensOf(range);
      const auto size = static_cast<int64_t>(range.size());
      if (waves.empty() || tokens + more > budget || rows > max_rows - size) {
        waves.emplace_back();
        tokens = rows = 0;
      }
      waves.back().push_back({t, range});
      tokens += more;
      rows += size;
    }
  }
  return waves;
}

// The rows of all replicas on every rank: a row's tokens are where it was run, nothing elsewhere.
absl::Status Merge(const Replicas& replicas, int64_t max_new_tokens, std::vector<Rows>& results) {
  if (replicas.count() == 1) return absl::OkStatus();
  int64_t rows = 0;
  for (const Rows& task : results) rows += static_cast<int64_t>(task.size());
  at::Tensor lines = at::zeros({rows, 1 + max_new_tokens}, at::kLong);  // Length, tokens.
  auto line = lines.accessor<int64_t, 2>();
  int64_t index = 0;
  for (const Rows& task : results) {
    for (const std::vector<int32_t>& row : task) {
      line[index][0] = static_cast<int64_t>(row.size());
      for (size_t t = 0; t < row.size(); ++t) line[index][static_cast<int64_t>(t) + 1] = row[t];
      ++index;
    }
  }
  BEARING_RETURN_IF_ERROR(replicas.Sum(lines));
  index = 0;
  for (Rows& task : results) {
    for (std::vector<int32_t>& row : task) {
      row.resize(line[index][0]);
      for (size_t t = 0; t < row.size(); ++t) row[t] = static_cast<int32_t>(line[index][static_cast<int64_t>(t) + 1]);
      ++index;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ArgMax(const model::Decoder& decoder, const at::Tensor& local_logits_NV) {
  const auto [value, index] = at::max(local_logits_NV, 1);
  // [1, N, 2]: fp64 holds fp32 values and ids exactly.
  at::Tensor mine = at::stack({value.to(at::kDouble), (index + decoder.local_vocab().begin).to(at::kDouble)}, 1);
  mine = mine.unsqueeze(0).contiguous();
  BEARING_ASSIGN_OR_RETURN(at::Tensor all, decoder.comm().AllGather(mine));
  all = all.cpu();  // Decoding goes on in host code: the one wait a step.
  const auto best = all.accessor<double, 3>();
  std::vector<int32_t> ids(local_logits_NV.size(0));
  for (size_t n = 0; n < ids.size(); ++n) {
    int64_t winner = 0;
    for (int64_t r = 1; r < all.size(0); ++r) {
      if (best[r][n][0] > best[winner][n][0]) winner = r;
    }
    ids[n] = static_cast<int32_t>(best[winner][n][1]);
  }
  return ids;
}

Generation::Generation(Replicas& replicas, std::vector<GenerationTask> tasks, GenerationOptions options)
    : replicas_(replicas),
      tasks_(std::move(tasks)),
      options_(std::move(options)),
      batchers_(MakeBatchers(replicas.decoder().config(), tasks_)),
      waves_(CutWaves(batchers_, options_.budget, std::max<int64_t>(1, options_.max_rows))) {}

absl::Status Generation::Run(const std::vector<bool>& finished, const Sink& sink) {
  std::vector<size_t> wanted;
  std::vector<double> costs, before;  // Rows of each wave, and of those in front of it.
  double all = 0;
  for (size_t w = 0; w < waves_.size(); ++w) {
    double rows = 0;
    for (const WavePart& part : waves_[w]) rows += static_cast<double>(part.rows.size());
    if (finished.empty() || !finished[w]) {
      wanted.push_back(w);
      costs.push_back(rows);
      before.push_back(all);
    }
    all += rows;
  }
  const auto run = [&](size_t item) {
    Wave wave(replicas_.decoder(), tasks_, options_, sink);
    for (const WavePart& part : waves_[wanted[item]]) wave.Add(part.task, *batchers_[part.task], part.rows);
    return wave.Run([&](double share) { return options_.progress((before[item] + share * costs[item]) / all); });
  };
  return replicas_.Share(costs, run, {});
}

int64_t WaveBudget(const Replicas& replicas, absl::Span<const GenerationTask> tasks, int64_t budget) {
  int64_t tokens = 0;
  for (const GenerationTask& task : tasks) {
    if (task.rows->empty()) continue;
    tokens += RowBatcher(replicas.decoder().config(), *task.rows, /*keep=*/1).TokensOf({0, task.rows->size()});
  }
  return replicas.Budget(budget, tokens);
}

int64_t CacheRows(const model::Decoder& decoder, const sharding::RankPlan& plan, int64_t max_new_tokens, int64_t bytes) {
  int64_t token_bytes = 0;
  for (const sharding::LayerSpec& layer : decoder.config().layers) {
    token_bytes +=
        2 * plan.kv_heads.size() * layer.attention.head_dim * static_cast<int64_t>(c10::elementSize(decoder.dtype()));
  }
  return std::max<int64_t>(1, bytes / std::max<int64_t>(1, token_bytes * max_new_tokens));
}

absl::StatusOr<std::vector<Rows>> GenerateRows(Replicas& replicas, absl::Span<const GenerationTask> tasks,
                                               const GenerationOptions& options) {
  std::vector<Rows> results;
  for (const GenerationTask& task : tasks) results.emplace_back(task.rows->size());
  GenerationOptions cut = options;
  cut.budget = WaveBudget(replicas, tasks, options.budget);
  Generation generation(replicas, {tasks.begin(), tasks.end()}, cut);
  BEARING_RETURN_IF_ERROR(generation.Run({}, [&](const GeneratedRow& row) { results[row.task][row.row] = row.tokens; }));
  BEARING_RETURN_IF_ERROR(Merge(replicas, options.max_new_tokens, results));
  return results;
}

}  // namespace bearing::steer
