#include "worker/steer/geometry.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace bearing::steer {
namespace {

std::vector<double> HostNumbers(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  const double* data = flat.const_data_ptr<double>();
  return {data, data + flat.numel()};
}

// Mann-Whitney: ranks of the positive values among all, the mean rank for ties.
double Auroc(const std::vector<double>& values, int64_t positives) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  double rank_sum = 0;
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    int64_t of_positive = 0;
    for (; end < order.size() && values[order[end]] == values[order[begin]]; ++end) {
      of_positive += static_cast<int64_t>(order[end]) < positives ? 1 : 0;
    }
    const double mean_rank = (static_cast<double>(begin + 1) + static_cast<double>(end)) / 2;
    rank_sum += mean_rank * static_cast<double>(of_positive);
    begin = end;
  }
  const auto p = static_cast<double>(positives);
  const double n = static_cast<double>(values.size()) - p;
  return (rank_sum - p * (p + 1) / 2) / (p * n);
}

double Silhouette(const at::Tensor& gram, int64_t positives) {
  const int64_t n = gram.size(0);
  if (positives < 2 || n - positives < 2) return 0;
  const at::Tensor squares = at::diagonal(gram);
  const at::Tensor distances = at::sqrt(at::clamp_min(squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * gram, 0));
  const at::Tensor to_positive = distances.narrow(1, 0, positives).sum(1);
  const at::Tensor to_negative = distances.narrow(1, positives, n - positives).sum(1);
  const double* p = to_positive.const_data_ptr<double>();
  const double* q = to_negative.const_data_ptr<double>();
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool positive = i < positives;
    const auto own = static_cast<double>(positive ? positives : n - positives);
    const auto other = static_cast<double>(n) - own;
    const double a = (positive ? p[i] : q[i]) / (own - 1);
    const double b = (positive ? q[i] : p[i]) / other;
    if (std::max(a, b) > 0) sum += (b - a) / std::max(a, b);
  }
  return sum / static_cast<double>(n);
}

// Mean and standard deviation (of the population).
std::pair<double, double> MeanAndSpread(const at::Tensor& values) {
  return {values.mean().item<double>(), at::std(values, /*unbiased=*/false).item<double>()};
}

}  // namespace

std::array<double, LayerGeometry::kNumbers> LayerGeometry::ToArray() const {
  return {positive_norm,
          negative_norm,
          positive_norm_spread,
          negative_norm_spread,
          difference_norm,
          pc1_share,
          pc2_share,
          pc1_cosine,
          auroc,
          silhouette};
}

LayerGeometry LayerGeometry::FromArray(const double* v) {
  LayerGeometry layer;
  layer.positive_norm = v[0], layer.negative_norm = v[1];
  layer.positive_norm_spread = v[2], layer.negative_norm_spread = v[3];
  layer.difference_norm = v[4];
  layer.pc1_share = v[5], layer.pc2_share = v[6];
  layer.pc1_cosine = v[7];
  layer.auroc = v[8];
  layer.silhouette = v[9];
  return layer;
}

LayerGeometry GeometryOfGram(const at::Tensor& gram, int64_t positives) {
  const int64_t n = gram.size(0);
  const int64_t negatives = n - positives;
  LayerGeometry layer;
  const at::Tensor norms = at::sqrt(at::clamp_min(at::diagonal(gram), 0));
  std::tie(layer.positive_norm, layer.positive_norm_spread) = MeanAndSpread(norms.narrow(0, 0, positives));
  std::tie(layer.negative_norm, layer.negative_norm_spread) = MeanAndSpread(norms.narrow(0, positives, negatives));

  const at::Tensor w = at::cat({at::full({positives}, 1.0 / static_cast<double>(positives), at::kDouble),
                                at::full({negatives}, -1.0 / static_cast<double>(negatives), at::kDouble)});
  const at::Tensor along = at::mv(gram, w);
  layer.difference_norm = std::sqrt(std::max(0.0, at::dot(w, along).item<double>()));
  const bool differs = layer.difference_norm > 0;
  layer.projections = HostNumbers(differs ? along / layer.difference_norm : at::zeros_like(along));
  layer.auroc = Auroc(layer.projections, positives);
  layer.silhouette = Silhouette(gram, positives);

  // Without the mean of all rows.
  const at::Tensor row_mean = gram.mean(1);
  const at::Tensor centered = gram - row_mean.unsqueeze(0) - row_mean.unsqueeze(1) + gram.mean();
  const auto spectrum = at::linalg_eigh(centered);  // Ascending.
  const at::Tensor& values = std::get<0>(spectrum);
  const at::Tensor& vectors = std::get<1>(spectrum);
  const double variance = at::diagonal(centered).sum().item<double>();
  const auto component = [&](int64_t k, double* share) {
    const double value = k < n ? std::max(0.0, values[n - 1 - k].item<double>()) : 0;
    *share = variance > 0 ? value / variance : 0;
    if (value == 0) return at::zeros({n}, at::kDouble);
    return at::Tensor(vectors.select(1, n - 1 - k) * std::sqrt(value));
  };
  at::Tensor first = component(0, &layer.pc1_share);
  const at::Tensor second = component(1, &layer.pc2_share);
  const double pc1_norm = at::norm(first).item<double>();
  if (differs && pc1_norm > 0) {
    // first = sqrt(lambda) u, so u . (C G w) / sqrt(lambda) = first . (C G w) / lambda.
    const double cosine = at::dot(first, along - along.mean()).item<double>() / (pc1_norm * pc1_norm * layer.difference_norm);
    layer.pc1_cosine = std::min(1.0, std::fabs(cosine));
    if (cosine < 0) first = -first;
  }
  layer.pc1 = HostNumbers(first);
  layer.pc2 = HostNumbers(second);
  return layer;
}

DirectionCosines CosinesOfDirections(const at::Tensor& difference_PLD, double zero_share) {
  const at::Tensor norms = at::norm(difference_PLD, 2, {2}, /*keepdim=*/true);
  const at::Tensor is_direction = norms.gt(zero_share * at::amax(norms).item<double>());
  const at::Tensor unit = at::where(is_direction, difference_PLD / norms, at::full({}, std::nan(""), at::kDouble));
  const at::Tensor by_layer = unit.transpose(0, 1).contiguous();
  return {at::clamp(at::bmm(unit, unit.transpose(1, 2)), -1, 1), at::clamp(at::bmm(by_layer, by_layer.transpose(1, 2)), -1, 1)};
}

void LastRows::Add(const CapturedBatch& batch, const std::vector<bool>& keep) {
  for (size_t i = 0; i < batch.own.size(); ++i) {
    const int64_t prompt = static_cast<int64_t>(batch.range.begin) + batch.own[i];
    const bool wanted = keep[static_cast<size_t>(batch.own[i])] && (!among_first_ || prompt < max_rows_);
    if (!wanted || static_cast<int64_t>(rows_.size()) >= max_rows_) continue;
    const at::Tensor row_LPD = batch.residual_NLPD.select(0, static_cast<int64_t>(i));
    rows_[prompt] = row_LPD.select(1, row_LPD.size(1) - 1).cpu().contiguous();
  }
}

void LastRows::CopyLayer(int64_t layer, const std::vector<int>& prompts, at::Tensor out) const {
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto found = rows_.find(prompts[i]);
    if (found != rows_.end()) out.select(0, static_cast<int64_t>(i)).copy_(found->second.select(0, layer));
  }
}

}  // namespace bearing::steer
