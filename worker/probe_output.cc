#include "worker/probe_output.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

using jobs::ProbeReport;
using sharding::DType;
using sharding::SafetensorsTensor;

constexpr int64_t kColumnValues = int64_t{1} << 23;  // That are sorted at once: 64 MiB.
constexpr int64_t kReadValues = int64_t{1} << 20;

std::string NameOf(size_t set, const std::string& what) { return absl::StrCat(set == 0 ? "first." : "second.", what); }

absl::Span<const float> ValuesOf(const at::Tensor& dense) {
  return absl::MakeConstSpan(dense.const_data_ptr<float>(), static_cast<size_t>(dense.numel()));
}

// Linear between neighbours, as numpy's default. `sorted` is not empty.
double Quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

void AppendTo(ProbeReport::Curve& curve, std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  curve.mean.push_back(sum / static_cast<double>(values.size()));
  if (!std::isfinite(sum)) std::fill(values.begin(), values.end(), sum);  // A model that overflows has no quantiles.
  std::sort(values.begin(), values.end());
  curve.q10.push_back(Quantile(values, 0.1));
  curve.q25.push_back(Quantile(values, 0.25));
  curve.median.push_back(Quantile(values, 0.5));
  curve.q75.push_back(Quantile(values, 0.75));
  curve.q90.push_back(Quantile(values, 0.9));
}

std::vector<double> ToList(const at::Tensor& values) {
  const at::Tensor dense = values.contiguous();
  return {dense.const_data_ptr<double>(), dense.const_data_ptr<double>() + dense.numel()};
}

}  // namespace

ProbeOutput::ProbeOutput(sharding::SafetensorsPlaces file, const ProbeInputs& inputs, const ProbeShape& shape)
    : file_(std::move(file)), inputs_(inputs), shape_(shape) {
  const int64_t K = inputs.basis_KD.size(0);
  for (size_t s = 0; s < inputs.sets.size(); ++s) {
    sums_.push_back({at::zeros({K}, at::kDouble),
                     at::zeros({K, shape.num_layers}, at::kDouble),
                     at::zeros({K, shape.num_layers}, at::kDouble),
                     at::zeros({K, shape.num_layers, shape.num_heads}, at::kDouble),
                     {}});
  }
}

absl::StatusOr<ProbeOutput> ProbeOutput::Create(const std::string& path, const ProbeInputs& inputs, const ProbeShape& shape,
                                                const std::string& dtype) {
  const int64_t K = inputs.basis_KD.size(0);
  const int64_t L = shape.num_layers;
  std::vector<SafetensorsTensor> tensors = {{"directions", DType::kF32, {K, shape.d_model}}};
  for (size_t s = 0; s < inputs.sets.size(); ++s) {
    const steer::Rows& rows = inputs.sets[s].rows;
    const auto n = static_cast<int64_t>(rows.size());
    tensors.push_back({NameOf(s, "projection"), DType::kF32, {n, K, L + 1}});
    tensors.push_back({NameOf(s, "norm"), DType::kF32, {n, L + 1}});
    tensors.push_back({NameOf(s, "attention"), DType::kF32, {n, K, L}});
    tensors.push_back({NameOf(s, "mlp"), DType::kF32, {n, K, L}});
    tensors.push_back({NameOf(s, "heads"), DType::kF32, {n, K, L, shape.num_heads}});
    for (size_t r = 0; r < std::min(shape.token_prompts, rows.size()); ++r) {
      const auto length = static_cast<int64_t>(rows[r].size());
      tensors.push_back({NameOf(s, absl::StrCat("tokens.", r, ".projection")), DType::kF32, {K, length, L}});
      tensors.push_back({NameOf(s, absl::StrCat("tokens.", r, ".norm")), DType::kF32, {length, L}});
      tensors.push_back({NameOf(s, absl::StrCat("tokens.", r, ".ids")), DType::kI32, {length}});
    }
  }
  BEARING_ASSIGN_OR_RETURN(
      sharding::SafetensorsPlaces file,
      sharding::SafetensorsPlaces::Create(path, tensors, {{"dtype", dtype}, {"format", "bearing/probe/v1"}}));
  BEARING_RETURN_IF_ERROR(file.Write("directions", 0, ValuesOf(inputs.basis_KD.contiguous())));
  return ProbeOutput(std::move(file), inputs, shape);
}

absl::Status ProbeOutput::Take(size_t set, const steer::ProbedBatch& batch) {
  const auto first = static_cast<int64_t>(batch.range.begin);
  const auto write = [&](const char* what, const at::Tensor& values) {
    return file_.Write(NameOf(set, what), first * (values.numel() / values.size(0)), ValuesOf(values));
  };
  BEARING_RETURN_IF_ERROR(write("projection", batch.projection));
  BEARING_RETURN_IF_ERROR(write("norm", batch.norm));
  BEARING_RETURN_IF_ERROR(write("attention", batch.attention));
  BEARING_RETURN_IF_ERROR(write("mlp", batch.mlp));
  BEARING_RETURN_IF_ERROR(write("heads", batch.heads));

  SetSums& sums = sums_[set];
  const at::Tensor embedding = batch.projection.select(2, 0).to(at::kDouble);
  const at::Tensor attention = batch.attention.to(at::kDouble);
  const at::Tensor mlp = batch.mlp.to(at::kDouble);
  sums.embedding.add_(embedding.sum(0));
  sums.attention.add_(attention.sum(0));
  sums.mlp.add_(mlp.sum(0));
  sums.heads.add_(batch.heads.sum(0, /*keepdim=*/false, at::kDouble));
  const at::Tensor remainder =
      at::abs(batch.projection.select(2, shape_.num_layers).to(at::kDouble) - embedding - attention.sum(2) - mlp.sum(2));
  const at::Tensor norm = at::clamp_min(batch.norm.select(1, shape_.num_layers).to(at::kDouble), 1e-30);
  const double worst = at::amax(remainder / norm.unsqueeze(1)).item<double>();
  if (!(worst <= largest_remainder_)) largest_remainder_ = worst;  // NaN stays.
  for (const steer::ProbedBatch::Tokens& tokens : batch.tokens) BEARING_RETURN_IF_ERROR(TakeTokens(set, tokens));
  return absl::OkStatus();
}

absl::Status ProbeOutput::TakeTokens(size_t set, const steer::ProbedBatch::Tokens& tokens) {
  const std::vector<int32_t>& ids = inputs_.sets[set].rows[tokens.row];
  const auto name = [&](const char* what) { return NameOf(set, absl::StrCat("tokens.", tokens.row, ".", what)); };
  BEARING_RETURN_IF_ERROR(file_.Write(name("projection"), 0, ValuesOf(tokens.projection)));
  BEARING_RETURN_IF_ERROR(file_.Write(name("norm"), 0, ValuesOf(tokens.norm)));
  BEARING_RETURN_IF_ERROR(file_.Write(name("ids"), 0, absl::MakeConstSpan(ids)));

  ProbeReport::TokenMap map;
  map.prompt = static_cast<int64_t>(tokens.row);
  for (const int32_t id : ids) {
    BEARING_ASSIGN_OR_RETURN(std::string text, inputs_.TextOf(id));
    map.tokens.push_back(std::move(text));
  }
  const at::Tensor cosine =
      (tokens.projection.to(at::kDouble) / at::clamp_min(tokens.norm.to(at::kDouble), 1e-30)).contiguous();
  for (int64_t k = 0; k < cosine.size(0); ++k) {
    auto& rows = map.cosine.emplace_back();
    for (int64_t t = 0; t < cosine.size(1); ++t) rows.push_back(ToList(cosine[k][t]));
  }
  sums_[set].tokens.push_back(std::move(map));
  return absl::OkStatus();
}

// Column by column, a column holding a value of every prompt: as many columns at once as fit, one pass over the file for them.
absl::Status ProbeOutput::ReadCurves(size_t set, ProbeReport::Set& out) {
  const int64_t n = out.prompts;
  const int64_t K = inputs_.basis_KD.size(0);
  const int64_t layers = shape_.num_layers + 1;
  const int64_t columns = K * layers;
  const int64_t at_once = std::clamp<int64_t>(kColumnValues / n, 1, columns);
  const int64_t rows_at_once = std::max<int64_t>(1, kReadValues / (columns + layers));
  std::vector<float> projection, norm;
  for (int64_t begin = 0; begin < columns; begin += at_once) {
    const int64_t count = std::min(at_once, columns - begin);
    std::vector<std::vector<double>> values(static_cast<size_t>(count)), cosines(static_cast<size_t>(count));
    std::vector<double> norm_sums(static_cast<size_t>(layers));
    for (int64_t row = 0; row < n; row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, n - row);
      projection.resize(static_cast<size_t>(rows * columns));
      norm.resize(static_cast<size_t>(rows * layers));
      BEARING_RETURN_IF_ERROR(file_.Read(NameOf(set, "projection"), row * columns, absl::MakeSpan(projection)));
      BEARING_RETURN_IF_ERROR(file_.Read(NameOf(set, "norm"), row * layers, absl::MakeSpan(norm)));
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < count; ++c) {
          const double length = norm[static_cast<size_t>(r * layers + (begin + c) % layers)];
          const double value = projection[static_cast<size_t>(r * columns + begin + c)];
          values[static_cast<size_t>(c)].push_back(value);
          cosines[static_cast<size_t>(c)].push_back(length > 0 ? value / length : 0);
        }
        for (int64_t l = 0; l < layers; ++l) norm_sums[static_cast<size_t>(l)] += norm[static_cast<size_t>(r * layers + l)];
      }
    }
    for (int64_t c = 0; c < count; ++c) {
      ProbeReport::Measured& of = out.directions[static_cast<size_t>((begin + c) / layers)];
      AppendTo(of.projection, values[static_cast<size_t>(c)]);
      AppendTo(of.cosine, cosines[static_cast<size_t>(c)]);
    }
    if (begin == 0) {
      for (const double sum : norm_sums) out.norm.push_back(sum / static_cast<double>(n));
    }
  }
  return absl::OkStatus();
}

absl::Status ProbeOutput::Finish(ProbeReport& report) {
  report.largest_remainder = largest_remainder_;
  for (size_t s = 0; s < inputs_.sets.size(); ++s) {
    ProbeReport::Set& out = report.sets.emplace_back();
    out.label = inputs_.sets[s].label;
    out.suffix = inputs_.sets[s].suffix;
    out.prompts = static_cast<int64_t>(inputs_.sets[s].rows.size());
    out.tokens = std::move(sums_[s].tokens);
    const auto n = static_cast<double>(out.prompts);
    for (int64_t k = 0; k < inputs_.basis_KD.size(0); ++k) {
      ProbeReport::Measured& of = out.directions.emplace_back();
      of.embedding = sums_[s].embedding[k].item<double>() / n;
      of.attention = ToList(sums_[s].attention[k] / n);
      of.mlp = ToList(sums_[s].mlp[k] / n);
      for (int64_t l = 0; l < shape_.num_layers; ++l) of.heads.push_back(ToList(sums_[s].heads[k][l] / n));
    }
    BEARING_RETURN_IF_ERROR(ReadCurves(s, out));
  }
  return file_.Finish();
}

}  // namespace bearing::worker
