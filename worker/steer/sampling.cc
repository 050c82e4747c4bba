#include "worker/steer/sampling.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::steer {
namespace {

// What a rank that has no more tokens gives.
constexpr double kNothing = -1;

struct Entry {
  double weight;
  int64_t id;
};

// The likeliest `k` of this rank, [1, N, k, 2] fp64 on the host: weights and ids, falling.
at::Tensor TopTokens(const at::Tensor& weights_NV, int64_t vocab_begin, int64_t k) {
  const int64_t own = std::min(k, weights_NV.size(1));
  const auto [weight, index] = at::topk(weights_NV, own, 1);
  at::Tensor top = at::full({1, weights_NV.size(0), k, 2}, kNothing, at::kDouble);
  at::Tensor mine = top[0].narrow(1, 0, own);
  mine.select(2, 0).copy_(weight);
  mine.select(2, 1).copy_(index + vocab_begin);
  return top;
}

// The end of the nucleus among the merged lists of all ranks, or nothing when it may lie behind them. `all` [R, N, k, 2].
class MergedRow {
 public:
  MergedRow(const at::TensorAccessor<double, 4>& all, int64_t row, int64_t ranks, int64_t k) {
    // A list that ends in a token may go on; what is lighter than that token, or as heavy, is not all here.
    for (int64_t r = 0; r < ranks; ++r) {
      horizon_ = std::max(horizon_, all[r][row][k - 1][0]);
      for (int64_t i = 0; i < k && all[r][row][i][0] != kNothing; ++i) {
        entries_.push_back({all[r][row][i][0], static_cast<int64_t>(all[r][row][i][1])});
      }
    }
    std::sort(entries_.begin(), entries_.end(),
              [](const Entry& a, const Entry& b) { return a.weight > b.weight || (a.weight == b.weight && a.id < b.id); });
  }

  bool Find(double wanted, bool complete, NucleusEnd& end) const {
    double sum = 0;
    for (const Entry& entry : entries_) {
      if (!complete && entry.weight <= horizon_) return false;
      sum += entry.weight;
      end = {entry.weight, entry.id};
      if (sum >= wanted) return true;
    }
    return complete;  // Rounding may leave the sum just below; then every token is inside.
  }

 private:
  std::vector<Entry> entries_;
  double horizon_ = kNothing;
};

}  // namespace

absl::StatusOr<std::vector<NucleusEnd>> FindNuclei(comm::Communicator& comm, int64_t vocab_begin, const at::Tensor& weights_NV,
                                                   double top_p, int64_t first_k) {
  const int64_t rows = weights_NV.size(0);
  // [R, N + 1]: sums of the rows, and the number of columns.
  at::Tensor mine = at::empty({1, rows + 1}, at::device(weights_NV.device()).dtype(at::kDouble));
  mine[0].narrow(0, 0, rows).copy_(at::sum(weights_NV, 1, false, at::kDouble));
  mine[0][rows].fill_(static_cast<double>(weights_NV.size(1)));
  BEARING_ASSIGN_OR_RETURN(at::Tensor sums, comm.AllGather(mine));
  sums = sums.cpu();
  const auto sum = sums.accessor<double, 2>();
  double widest = 0;
  for (int64_t r = 0; r < sums.size(0); ++r) widest = std::max(widest, sum[r][rows]);
  std::vector<NucleusEnd> ends(rows);
  std::vector<int64_t> open(rows);
  for (int64_t r = 0; r < rows; ++r) open[r] = r;
  for (int64_t k = first_k; !open.empty(); k *= 8) {
    k = std::min(k, static_cast<int64_t>(widest));
    const bool complete = k == static_cast<int64_t>(widest);
    const at::Tensor index = at::tensor(open, at::kLong).to(weights_NV.device());
    const at::Tensor weights = static_cast<int64_t>(open.size()) == rows ? weights_NV : weights_NV.index_select(0, index);
    BEARING_ASSIGN_OR_RETURN(const at::Tensor all, comm.AllGather(TopTokens(weights, vocab_begin, k)));
    const auto lists = all.accessor<double, 4>();
    std::vector<int64_t> still;
    for (size_t i = 0; i < open.size(); ++i) {
      double total = 0;
      for (int64_t r = 0; r < sums.size(0); ++r) total += sum[r][open[i]];
      if (!MergedRow(lists, static_cast<int64_t>(i), all.size(0), k).Find(top_p * total, complete, ends[open[i]])) {
        still.push_back(open[i]);
      }
    }
    open = std::move(still);
  }
  return ends;
}

absl::StatusOr<std::vector<int32_t>> SampleTokens(comm::Communicator& comm, int64_t vocab_begin, at::Tensor logits,
                                                  const Sampling& sampling, absl::Span<const int64_t> prompts, int64_t step) {
  at::Tensor top = at::amax(logits, 1);
  BEARING_RETURN_IF_ERROR(comm.AllReduce(top, comm::ReduceOp::kMax));
  const at::Tensor weights = logits.sub_(top.unsqueeze(1)).div_(sampling.temperature).exp_();
  std::vector<NucleusEnd> ends;
  if (sampling.top_p < 1) {
    BEARING_ASSIGN_OR_RETURN(ends, FindNuclei(comm, vocab_begin, weights, sampling.top_p));
  }
  const RaceKind kind = weights.is_cpu() ? RaceKind::kHost : RaceKind::kAten;
  const at::Tensor mine = Race(kind, weights, vocab_begin, ends, sampling, prompts, step);
  BEARING_ASSIGN_OR_RETURN(const at::Tensor all, comm.AllGather(mine.unsqueeze(0).contiguous()));
  const auto winners = all.accessor<double, 3>();
  std::vector<int32_t> tokens(prompts.size());
  for (size_t n = 0; n < tokens.size(); ++n) {
    int64_t first = 0;
    for (int64_t r = 1; r < all.size(0); ++r) {
      if (winners[r][n][0] < winners[first][n][0]) first = r;
    }
    // NaN logits let nobody ring.
    if (winners[first][n][1] < 0) {
      return absl::InternalError(
          absl::StrCat("no token can be drawn: the logits are not finite: prompt=", prompts[n] + 1, " step=", step + 1));
    }
    tokens[n] = static_cast<int32_t>(winners[first][n][1]);
  }
  return tokens;
}

}  // namespace bearing::steer
