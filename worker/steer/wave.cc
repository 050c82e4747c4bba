#include "worker/steer/wave.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "sharding/status_macros.h"
#include "worker/steer/concept_metric.h"

namespace bearing::steer {
namespace {

bool Contains(absl::Span<const int64_t> ids, int32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }
bool Contains(absl::Span<const int32_t> ids, int32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

}  // namespace

void Wave::Add(size_t task, const RowBatcher& batcher, RowRange range) {
  std::vector<int> segments;
  batcher.AppendGroup(range, tasks_[task].intervention, prefill_, segments, read_);
  const int64_t context = decoder_.config().max_positions;
  for (size_t i = 0; i < segments.size(); ++i) {
    Running row;
    row.result.task = task;
    row.result.row = range.begin + i;
    row.cache_row = static_cast<int>(running_.size());
    row.room = options_.max_new_tokens;
    const auto length = static_cast<int64_t>((*tasks_[task].rows)[row.result.row].size());
    if (context > 0) row.room = std::min(row.room, context - length);
    running_.push_back(std::move(row));
    segments_.push_back(segments[i]);
  }
}

absl::Status Wave::Run(const Replicas::Progress& progress) {
  int64_t steps = 1;
  for (const Running& row : running_) steps = std::max(steps, row.room);
  model::KvCache cache = decoder_.MakeCache(prefill_, segments_, steps);
  model::RunOptions run;
  run.cache = &cache;
  BEARING_ASSIGN_OR_RETURN(at::Tensor x, decoder_.Run(prefill_, read_, run));
  prefill_ = model::PackedBatch();
  for (int64_t step = 0;; ++step) {
    BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, NextTokens(decoder_.LocalLogits(x), step));
    BEARING_RETURN_IF_ERROR(Accept(tokens));
    BEARING_RETURN_IF_ERROR(progress(static_cast<double>(step + 1) / static_cast<double>(steps)));
    if (running_.empty()) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(x, Step(cache, run));
  }
}

absl::StatusOr<std::vector<int32_t>> Wave::NextTokens(at::Tensor logits, int64_t step) {
  const bool measured = step == 0 && !options_.metric_tokens.empty();
  std::vector<int32_t> tokens;
  if (options_.sampling.is_greedy()) {
    BEARING_ASSIGN_OR_RETURN(tokens, ArgMax(decoder_, logits));
  } else {
    std::vector<int64_t> prompts;
    for (const Running& row : running_) prompts.push_back(static_cast<int64_t>(row.result.row));
    BEARING_ASSIGN_OR_RETURN(tokens, SampleTokens(decoder_.comm(), decoder_.local_vocab().begin,
                                                  measured ? logits.clone() : logits, options_.sampling, prompts, step));
  }
  if (!measured) return tokens;
  BEARING_ASSIGN_OR_RETURN(const at::Tensor p, SoftmaxInPlace(decoder_, logits));
  BEARING_ASSIGN_OR_RETURN(const std::vector<double> metric, ConceptMetric(decoder_, p, options_.metric_tokens));
  for (size_t i = 0; i < running_.size(); ++i) running_[i].result.metric = metric[i];
  return tokens;
}

absl::StatusOr<std::string> Wave::FindStopTexts() {
  std::string found(running_.size(), '\0');
  if (decoder_.comm().rank() == 0 && options_.holds_stop_text) {
    for (size_t i = 0; i < running_.size(); ++i) found[i] = options_.holds_stop_text(running_[i].result.tokens) ? 1 : 0;
  }
  BEARING_RETURN_IF_ERROR(decoder_.comm().BroadcastBytes(found, 0));
  return found;
}

absl::Status Wave::Accept(const std::vector<int32_t>& tokens) {
  const std::vector<int64_t>& eos = decoder_.config().eos_token_ids;
  std::vector<Running> still;
  const auto end = [&](Running& row, Finish finish) {
    row.result.finish = finish;
    sink_(row.result);
  };
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& row = running_[i];
    if (Contains(eos, tokens[i])) {
      end(row, Finish::kEnd);
    } else if (Contains(options_.stop_tokens, tokens[i])) {
      end(row, Finish::kStop);
    } else {
      row.result.tokens.push_back(tokens[i]);
      still.push_back(std::move(row));
    }
  }
  running_ = std::move(still);
  std::string stopped(running_.size(), '\0');
  if (options_.has_stop_texts && !running_.empty()) {
    BEARING_ASSIGN_OR_RETURN(stopped, FindStopTexts());
  }
  still.clear();
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& row = running_[i];
    if (stopped[i] != 0) {
      end(row, Finish::kStop);
    } else if (static_cast<int64_t>(row.result.tokens.size()) >= row.room) {
      end(row, Finish::kLength);
    } else {
      still.push_back(std::move(row));
    }
  }
  running_ = std::move(still);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Wave::Step(model::KvCache& cache, const model::RunOptions& run) {
  model::PackedBatch batch;
  std::vector<int64_t> read;
  size_t open_task = tasks_.size();
  for (const Running& row : running_) {
    if (row.result.task != open_task) {
      batch.BeginGroup(tasks_[row.result.task].intervention);
      open_task = row.result.task;
    }
    const int segment = batch.Add({&row.result.tokens.back(), 1});
    batch.segments[segment].cache_row = row.cache_row;
    batch.segments[segment].first_position = cache.NextPosition(row.cache_row);
    read.push_back(segment);
  }
  return decoder_.Run(batch, read, run);
}

}  // namespace bearing::steer
