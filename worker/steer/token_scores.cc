#include "worker/steer/token_scores.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "sharding/status_macros.h"
#include "worker/model/batch_view.h"

namespace bearing::steer {
namespace {

// A token that is read: which row it is of, and which of the row's scored tokens it predicts.
struct Read {
  size_t row = 0;
  int64_t index = 0;
  int64_t target = 0;
};

// Rows of a matrix taken at a time: on the CPU so few that the temporaries stay in cache.
int64_t StepOf(const at::Tensor& matrix) {
  constexpr int64_t kElements = 1 << 17;
  return matrix.is_cpu() ? std::max<int64_t>(1, kElements / std::max<int64_t>(1, matrix.size(1))) : matrix.size(0);
}

class Scorer {
 public:
  Scorer(model::Decoder& decoder, absl::Span<const ScoredRow> rows, int64_t interventions, const TokenScoreOptions& options)
      : decoder_(decoder), rows_(rows), interventions_(interventions), options_(options) {
    const auto num_rows = static_cast<int64_t>(rows.size());
    scores_.log_likelihood_IR = at::zeros({interventions, num_rows}, at::kDouble);
    if (options.kl_tokens > 0) scores_.kl_IRK = at::zeros({interventions, num_rows, options.kl_tokens}, at::kDouble);
  }

  TokenScores& scores() { return scores_; }

  // What a pass reads under each intervention, in this order.
  std::vector<Read> ReadsOf(absl::Span<const RowFamily> families) const {
    std::vector<Read> reads;
    for (const RowFamily& family : families) {
      for (size_t r = family.rows.begin; r < family.rows.end; ++r) {
        for (int64_t i = 0; i < rows_[r].num_scored(); ++i) reads.push_back({r, i, rows_[r].tokens[rows_[r].first + i]});
      }
    }
    return reads;
  }

  // x [I * N, D] of a pass that reads `reads` [N] under each intervention.
  absl::Status Take(absl::Span<const Read> reads, const at::Tensor& x_ND) {
    const auto n = static_cast<int64_t>(reads.size());
    const int64_t at_once =
        std::max<int64_t>(1, options_.logit_elements / (interventions_ * std::max<int64_t>(1, decoder_.local_vocab().size())));
    for (int64_t first = 0; first < n; first += at_once) {
      const int64_t count = std::min(at_once, n - first);
      std::vector<at::Tensor> parts;
      for (int64_t i = 0; i < interventions_; ++i) parts.push_back(x_ND.narrow(0, i * n + first, count));
      BEARING_RETURN_IF_ERROR(TakeLogits(reads.subspan(first, count), decoder_.LocalLogits(at::cat(parts, 0))));
    }
    return absl::OkStatus();
  }

 private:
  // logits [I * n, V of this rank] of n reads.
  absl::Status TakeLogits(absl::Span<const Read> reads, const at::Tensor& logits) {
    const auto n = static_cast<int64_t>(reads.size());
    BEARING_ASSIGN_OR_RETURN(const at::Tensor log_sum, LogSum(logits));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor picked, Picked(reads, logits));
    const at::Tensor found = at::sub(picked, log_sum).cpu();
    const auto of = found.accessor<double, 1>();
    auto sums = scores_.log_likelihood_IR.accessor<double, 2>();
    for (int64_t i = 0; i < interventions_; ++i) {
      for (int64_t r = 0; r < n; ++r) sums[i][static_cast<int64_t>(reads[r].row)] += of[i * n + r];
    }
    return options_.kl_tokens > 0 ? TakeKl(reads, logits, log_sum) : absl::OkStatus();
  }

  // Logarithm of the softmax's denominator of each row, over all ranks. fp64 [I * n].
  absl::StatusOr<at::Tensor> LogSum(const at::Tensor& logits) {
    at::Tensor top = at::amax(logits, 1);
    BEARING_RETURN_IF_ERROR(decoder_.comm().AllReduce(top, comm::ReduceOp::kMax));
    at::Tensor sum = at::empty({logits.size(0)}, logits.options().dtype(at::kDouble));
    for (int64_t r = 0, step = StepOf(logits); r < logits.size(0); r += step) {
      step = std::min(step, logits.size(0) - r);
      const at::Tensor shifted = logits.narrow(0, r, step) - top.narrow(0, r, step).unsqueeze(1);
      sum.narrow(0, r, step).copy_(at::sum(shifted.exp_(), 1, false, at::kDouble));
    }
    BEARING_RETURN_IF_ERROR(decoder_.comm().AllReduce(sum, comm::ReduceOp::kSum));
    return at::add(at::log(sum), top);
  }

  // The logit of each read's target; only one rank has it. fp64 [I * n].
  absl::StatusOr<at::Tensor> Picked(absl::Span<const Read> reads, const at::Tensor& logits) {
    const sharding::Range vocab = decoder_.local_vocab();
    std::vector<int64_t> column(reads.size()), mine(reads.size());
    for (size_t r = 0; r < reads.size(); ++r) {
      mine[r] = reads[r].target >= vocab.begin && reads[r].target < vocab.end ? 1 : 0;
      column[r] = mine[r] * (reads[r].target - vocab.begin);
    }
    const at::Tensor index = at::tensor(column, at::kLong).to(logits.device()).repeat({interventions_}).unsqueeze(1);
    const at::Tensor here = at::tensor(mine, at::kLong).to(logits.device()).repeat({interventions_});
    at::Tensor picked = at::mul(logits.gather(1, index).squeeze(1).to(at::kDouble), here).contiguous();
    BEARING_RETURN_IF_ERROR(decoder_.comm().AllReduce(picked, comm::ReduceOp::kSum));
    return picked;
  }

  absl::Status TakeKl(absl::Span<const Read> reads, const at::Tensor& logits, const at::Tensor& log_sum) {
    const auto n = static_cast<int64_t>(reads.size());
    std::vector<int64_t> wanted;
    for (int64_t r = 0; r < n; ++r) {
      if (reads[r].index < options_.kl_tokens) wanted.push_back(r);
    }
    if (wanted.empty() || interventions_ == 1) return absl::OkStatus();
    const auto count = static_cast<int64_t>(wanted.size());
    at::Tensor kl = at::empty({interventions_ - 1, count}, log_sum.options());
    for (int64_t w = 0, step = StepOf(logits); w < count; w += step) {
      step = std::min(step, count - w);
      const std::vector<int64_t> chosen(wanted.begin() + w, wanted.begin() + w + step);
      const at::Tensor rows = at::tensor(chosen, at::kLong).to(logits.device());
      const auto take = [&](const at::Tensor& of, int64_t i) { return of.index_select(0, rows + i * n); };
      const at::Tensor base = take(logits, 0);
      const at::Tensor base_sum = take(log_sum, 0);
      const at::Tensor p = at::exp(base - base_sum.to(at::kFloat).unsqueeze(1));
      for (int64_t i = 1; i < interventions_; ++i) {
        // The logits' difference first: it is exact where they are close.
        const at::Tensor shift = at::sub(base_sum, take(log_sum, i)).to(at::kFloat).unsqueeze(1);
        at::Tensor terms = (base - take(logits, i)).sub_(shift).mul_(p);
        kl[i - 1].narrow(0, w, step).copy_(at::sum(terms, 1, false, at::kDouble));
      }
    }
    BEARING_RETURN_IF_ERROR(decoder_.comm().AllReduce(kl, comm::ReduceOp::kSum));
    kl = kl.cpu();
    const auto found = kl.accessor<double, 2>();
    auto table = scores_.kl_IRK.accessor<double, 3>();
    for (int64_t i = 1; i < interventions_; ++i) {
      for (int64_t w = 0; w < count; ++w) {
        const Read& read = reads[wanted[w]];
        table[i][static_cast<int64_t>(read.row)][read.index] = found[i - 1][w];
      }
    }
    return absl::OkStatus();
  }

  model::Decoder& decoder_;
  const absl::Span<const ScoredRow> rows_;
  const int64_t interventions_;
  const TokenScoreOptions& options_;
  TokenScores scores_;
};

// Families whose groups fill a pass, each repeated under every intervention.
std::vector<std::vector<RowFamily>> FillPasses(const std::vector<RowFamily>& families, int64_t budget) {
  std::vector<std::vector<RowFamily>> passes;
  int64_t tokens = 0;
  for (const RowFamily& family : families) {
    if (passes.empty() || tokens + family.tokens > budget) {
      passes.emplace_back();
      tokens = 0;
    }
    passes.back().push_back(family);
    tokens += family.tokens;
  }
  return passes;
}

}  // namespace

absl::StatusOr<TokenScores> ScoreTokens(Replicas& replicas, absl::Span<const ScoredRow> rows,
                                        absl::Span<const model::Intervention> interventions, const TokenScoreOptions& options) {
  model::Decoder& decoder = replicas.decoder();
  const auto count = static_cast<int64_t>(interventions.size());
  for (size_t r = 0; r < rows.size(); ++r) {
    const ScoredRow& row = rows[r];
    if (row.first < 1 || row.num_scored() < 1) {
      return absl::InternalError("a scored token needs one before it, and a row a scored token");
    }
  }
  const int64_t boundary = model::LongRopeBoundary(decoder.config());
  int64_t tokens = 0;
  for (const RowFamily& family : ShareRows(rows, options.budget / count, boundary)) tokens += family.tokens;
  const int64_t budget = std::max<int64_t>(1, replicas.Budget(options.budget, count * tokens) / count);

  Scorer scorer(decoder, rows, count, options);
  const std::vector<std::vector<RowFamily>> filled = FillPasses(ShareRows(rows, budget, boundary), budget);
  std::vector<model::Pass> passes(filled.size());
  for (size_t p = 0; p < filled.size(); ++p) {
    model::Pass& pass = passes[p];
    for (const model::Intervention& intervention : interventions) {
      pass.batch.BeginGroup(intervention);
      for (const RowFamily& family : filled[p]) AppendFamily(rows, family, pass.batch, pass.read);
    }
    pass.done = [&scorer, families = absl::MakeConstSpan(filled[p])](const at::Tensor& x_ND) {
      return scorer.Take(scorer.ReadsOf(families), x_ND);
    };
  }
  BEARING_RETURN_IF_ERROR(replicas.Run(absl::MakeSpan(passes), Handout::kDrawn, options.progress));
  BEARING_RETURN_IF_ERROR(replicas.Sum(scorer.scores().log_likelihood_IR));
  if (options.kl_tokens > 0) BEARING_RETURN_IF_ERROR(replicas.Sum(scorer.scores().kl_IRK));
  return std::move(scorer.scores());
}

}  // namespace bearing::steer
