#include "worker/steer/generate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>

#include "sharding/status_macros.h"

namespace bearing::steer {
namespace {

// One row of a wave: where its result goes and how far it is.
struct Running {
  size_t task;
  size_t row;
  int cache_row;
  int32_t next_token;
};

class Wave {
 public:
  Wave(model::Decoder& decoder, absl::Span<const GenerationTask> tasks, const GenerationOptions& options,
       std::vector<Rows>& results)
      : decoder_(decoder), tasks_(tasks), options_(options), results_(results) {}

  void Add(size_t task, const RowBatcher& batcher, RowRange range) {
    std::vector<int> segments;
    batcher.AppendGroup(range, tasks_[task].intervention, prefill_, segments, read_);
    for (size_t i = 0; i < segments.size(); ++i) {
      running_.push_back({task, range.begin + i, static_cast<int>(running_.size()), 0});
      segments_.push_back(segments[i]);
    }
  }
  int64_t num_tokens() const { return prefill_.num_tokens(); }
  void Clear() {
    prefill_ = model::PackedBatch();
    running_.clear();
  }

  // `progress` takes the share of the wave that is done.
  absl::Status Run(const Replicas::Progress& progress) {
    model::KvCache cache = decoder_.MakeCache(prefill_, segments_, options_.max_new_tokens);
    model::RunOptions run;
    run.cache = &cache;
    BEARING_ASSIGN_OR_RETURN(at::Tensor x, decoder_.Run(prefill_, read_, run));
    for (int64_t step = 0;; ++step) {
      BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ArgMax(decoder_, decoder_.LocalLogits(x)));
      Accept(tokens);
      BEARING_RETURN_IF_ERROR(progress(static_cast<double>(step + 1) / static_cast<double>(options_.max_new_tokens)));
      if (running_.empty() || step + 1 == options_.max_new_tokens) return absl::OkStatus();
      BEARING_ASSIGN_OR_RETURN(x, Step(cache, run));
    }
  }

 private:
  // Records the new token of every running row; rows that said an end token leave.
  void Accept(const std::vector<int32_t>& tokens) {
    const std::vector<int64_t>& eos = decoder_.config().eos_token_ids;
    std::vector<Running> still;
    for (size_t i = 0; i < running_.size(); ++i) {
      if (std::find(eos.begin(), eos.end(), tokens[i]) != eos.end()) continue;
      results_[running_[i].task][running_[i].row].push_back(tokens[i]);
      running_[i].next_token = tokens[i];
      still.push_back(running_[i]);
    }
    running_ = std::move(still);
  }

  absl::StatusOr<at::Tensor> Step(model::KvCache& cache, const model::RunOptions& run) {
    model::PackedBatch batch;
    std::vector<int64_t> read;
    size_t open_task = tasks_.size();
    for (const Running& row : running_) {
      if (row.task != open_task) {
        batch.BeginGroup(tasks_[row.task].intervention);
        open_task = row.task;
      }
      const int segment = batch.Add({&row.next_token, 1});
      batch.segments[segment].cache_row = row.cache_row;
      batch.segments[segment].first_position = cache.NextPosition(row.cache_row);
      read.push_back(segment);
    }
    return decoder_.Run(batch, read, run);
  }

  model::Decoder& decoder_;
  absl::Span<const GenerationTask> tasks_;
  const GenerationOptions& options_;
  std::vector<Rows>& results_;
  model::PackedBatch prefill_;
  std::vector<int> segments_;
  std::vector<int64_t> read_;
  std::vector<Running> running_;
};

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

absl::StatusOr<std::vector<Rows>> GenerateGreedy(Replicas& replicas, absl::Span<const GenerationTask> tasks,
                                                 const GenerationOptions& options) {
  model::Decoder& decoder = replicas.decoder();
  std::vector<Rows> results;
  std::vector<std::optional<RowBatcher>> batchers(tasks.size());
  int64_t tokens = 0;
  for (size_t t = 0; t < tasks.size(); ++t) {
    const Rows& rows = *tasks[t].rows;
    results.emplace_back(rows.size());
    if (rows.empty()) continue;
    batchers[t].emplace(decoder.config(), rows, /*keep=*/1);
    tokens += batchers[t]->TokensOf({0, rows.size()});
  }
  const int64_t budget = replicas.Budget(options.budget, tokens);
  std::vector<Wave> waves;
  std::vector<double> costs;
  for (size_t t = 0; t < tasks.size(); ++t) {
    if (!batchers[t].has_value()) continue;
    for (const RowRange range : batchers[t]->Cut(budget)) {
      if (waves.empty() || waves.back().num_tokens() + batchers[t]->TokensOf(range) > budget) {
        waves.emplace_back(decoder, tasks, options, results);
        costs.push_back(0);
      }
      waves.back().Add(t, *batchers[t], range);
      costs.back() += static_cast<double>(range.size());
    }
  }
  const double all = std::accumulate(costs.begin(), costs.end(), 0.0);
  const auto run = [&](size_t w) {
    const double before = std::accumulate(costs.begin(), costs.begin() + static_cast<std::ptrdiff_t>(w), 0.0);
    const auto progress = [&](double share) { return options.progress((before + share * costs[w]) / all); };
    const absl::Status status = waves[w].Run(progress);
    waves[w].Clear();
    return status;
  };
  BEARING_RETURN_IF_ERROR(replicas.Share(costs, run, {}));
  BEARING_RETURN_IF_ERROR(Merge(replicas, options.max_new_tokens, results));
  return results;
}

}  // namespace bearing::steer
