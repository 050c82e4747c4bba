#include "worker/steer/generate.h"

#include <ATen/ATen.h>

#include <algorithm>

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
       std::vector<Rows>& results, int64_t& tokens_made)
      : decoder_(decoder), tasks_(tasks), options_(options), results_(results), tokens_made_(tokens_made) {}

  void Add(size_t task, const RowBatcher& batcher, RowRange range) {
    std::vector<int> segments;
    batcher.AppendGroup(range, tasks_[task].intervention, prefill_, segments, read_);
    for (size_t i = 0; i < segments.size(); ++i) {
      running_.push_back({task, range.begin + i, static_cast<int>(running_.size()), 0});
      segments_.push_back(segments[i]);
    }
  }
  int64_t num_tokens() const { return prefill_.num_tokens(); }

  absl::Status Run() {
    model::KvCache cache = decoder_.MakeCache(prefill_, segments_, options_.max_new_tokens);
    model::RunOptions run;
    run.cache = &cache;
    BEARING_ASSIGN_OR_RETURN(at::Tensor x, decoder_.Run(prefill_, read_, run));
    for (int64_t step = 0;; ++step) {
      BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ArgMax(decoder_, decoder_.LocalLogits(x)));
      Accept(tokens);
      BEARING_RETURN_IF_ERROR(options_.progress(tokens_made_));
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
      ++tokens_made_;
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
  int64_t& tokens_made_;
  model::PackedBatch prefill_;
  std::vector<int> segments_;
  std::vector<int64_t> read_;
  std::vector<Running> running_;
};

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

absl::StatusOr<std::vector<Rows>> GenerateGreedy(model::Decoder& decoder, absl::Span<const GenerationTask> tasks,
                                                 const GenerationOptions& options) {
  std::vector<Rows> results;
  for (const GenerationTask& task : tasks) results.emplace_back(task.rows->size());
  int64_t tokens_made = 0;
  std::unique_ptr<Wave> wave;
  for (size_t t = 0; t < tasks.size(); ++t) {
    if (tasks[t].rows->empty()) continue;
    const RowBatcher batcher(decoder.config(), *tasks[t].rows, /*keep=*/1);
    for (const RowRange range : batcher.Cut(options.budget)) {
      if (wave != nullptr && wave->num_tokens() + batcher.TokensOf(range) > options.budget) {
        BEARING_RETURN_IF_ERROR(wave->Run());
        wave.reset();
      }
      if (wave == nullptr) wave = std::make_unique<Wave>(decoder, tasks, options, results, tokens_made);
      wave->Add(t, batcher, range);
    }
  }
  if (wave != nullptr) BEARING_RETURN_IF_ERROR(wave->Run());
  return results;
}

}  // namespace bearing::steer
