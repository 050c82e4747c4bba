#include "worker/stages/geometry.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "jobs/selection.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

std::vector<int> FirstOf(const std::vector<int>& kept) {
  const auto count = std::min<size_t>(kept.size(), static_cast<size_t>(kGeometryPrompts));
  return {kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(count)};
}

// Five digits are more than a plot shows.
double Rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return 0;
  const double unit = std::pow(10.0, 4 - std::floor(std::log10(std::fabs(value))));
  return std::round(value * unit) / unit;
}

nlohmann::json RoundedList(const double* values, int64_t n) {
  nlohmann::json list = nlohmann::json::array();
  for (int64_t i = 0; i < n; ++i) list.push_back(Rounded(values[i]));
  return list;
}

nlohmann::json ToJson(int64_t index, const double* row, int64_t n) {
  const steer::LayerGeometry layer = steer::LayerGeometry::FromArray(row);
  const double* lists = row + steer::LayerGeometry::kNumbers;
  return {{"layer", index},
          {"positive_norm", layer.positive_norm},
          {"positive_norm_spread", layer.positive_norm_spread},
          {"negative_norm", layer.negative_norm},
          {"negative_norm_spread", layer.negative_norm_spread},
          {"difference_norm", layer.difference_norm},
          {"pc1_share", layer.pc1_share},
          {"pc2_share", layer.pc2_share},
          {"pc1_cosine", layer.pc1_cosine},
          {"auroc", layer.auroc},
          {"silhouette", layer.silhouette},
          {"projections", RoundedList(lists, n)},
          {"pc1", RoundedList(lists + n, n)},
          {"pc2", RoundedList(lists + 2 * n, n)}};
}

// [A, B, B] as lists; four decimals are more than a plot shows; null where there is no direction.
nlohmann::json CosineLists(const at::Tensor& cosines) {
  nlohmann::json all = nlohmann::json::array();
  const double* value = cosines.const_data_ptr<double>();
  for (int64_t a = 0; a < cosines.size(0); ++a) {
    nlohmann::json matrix = nlohmann::json::array();
    for (int64_t b = 0; b < cosines.size(1); ++b) {
      nlohmann::json row = nlohmann::json::array();
      for (int64_t c = 0; c < cosines.size(2); ++c, ++value) {
        row.push_back(std::isfinite(*value) ? nlohmann::json(std::round(*value * 1e4) / 1e4) : nlohmann::json());
      }
      matrix.push_back(std::move(row));
    }
    all.push_back(std::move(matrix));
  }
  return all;
}

}  // namespace

absl::Status WriteGeometry(JobContext& context, const GeometrySide& positive, const GeometrySide& negative,
                           const at::Tensor& difference_PLD) {
  const std::vector<int> positives = FirstOf(*positive.kept);
  const std::vector<int> negatives = FirstOf(*negative.kept);
  const auto num_positive = static_cast<int64_t>(positives.size());
  const auto num_negative = static_cast<int64_t>(negatives.size());
  const int64_t n = num_positive + num_negative;
  const sharding::ModelConfig& config = context.reader->config();
  at::Tensor table = at::zeros({config.num_layers(), steer::LayerGeometry::kNumbers + 3 * n}, at::kDouble);
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    at::Tensor rows = at::zeros({n, config.d_model}, at::kFloat);
    positive.rows->CopyLayer(layer, positives, rows.narrow(0, 0, num_positive));
    negative.rows->CopyLayer(layer, negatives, rows.narrow(0, num_positive, num_negative));
    rows = rows.to(context.comm->device());
    BEARING_RETURN_IF_ERROR(context.comm->AllReduce(rows, comm::ReduceOp::kSum));
    if (layer % context.comm->size() != context.comm->rank()) continue;
    const at::Tensor wide = rows.to(at::kDouble);
    const at::Tensor gram = at::mm(wide, wide.t()).cpu();
    if (!at::isfinite(gram).all().item<bool>()) continue;  // A model that overflows has no geometry; its scores say so.
    const steer::LayerGeometry found = steer::GeometryOfGram(gram, num_positive);
    double* out = table.select(0, layer).mutable_data_ptr<double>();
    for (const double number : found.ToArray()) *out++ = number;
    for (const auto* list : {&found.projections, &found.pc1, &found.pc2}) out = std::copy(list->begin(), list->end(), out);
  }
  table = table.to(context.comm->device());
  BEARING_RETURN_IF_ERROR(context.comm->AllReduce(table, comm::ReduceOp::kSum));
  table = table.cpu();
  return context.OnRank0([&] {
    nlohmann::json layers = nlohmann::json::array();
    for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
      layers.push_back(ToJson(layer, table.select(0, layer).const_data_ptr<double>(), n));
    }
    const steer::DirectionCosines cosines = steer::CosinesOfDirections(difference_PLD, jobs::kZeroNormShare);
    const nlohmann::json document = {
        {"position", -1},
        {"positive", positives},
        {"negative", negatives},
        {"layers", std::move(layers)},
        {"direction_cosines",
         {{"layers", CosineLists(cosines.layers_PLL)}, {"positions", CosineLists(cosines.positions_LPP)}}}};
    return jobs::WriteFileAtomically(context.output->PathOf("geometry.json"), document.dump() + "\n");
  });
}

}  // namespace bearing::worker
