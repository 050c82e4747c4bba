#include "jobs/mean_grid.h"

#include <algorithm>
#include <cmath>

#include "sharding/concat.h"
#include "sharding/safetensors.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {

absl::StatusOr<MeanGrid> MeanGrid::Open(const std::string& path, const std::string& tensor) {
  MeanGrid grid;
  grid.name_ = Concat("file=", path, " tensor=", tensor);
  BEARING_ASSIGN_OR_RETURN(grid.file_, sharding::OpenLocalFile(path));
  BEARING_ASSIGN_OR_RETURN(const sharding::SafetensorsHeader header, sharding::ReadSafetensorsHeader(*grid.file_));
  const auto entry = std::find_if(header.entries.begin(), header.entries.end(),
                                  [&](const sharding::SafetensorsEntry& candidate) { return candidate.name == tensor; });
  if (entry == header.entries.end()) return absl::DataLossError(Concat("tensor is missing: ", grid.name_));
  if (entry->dtype != sharding::DType::kF64 || entry->shape.size() != 3) {
    return absl::DataLossError(Concat("tensor is not F64 of [positions, layers, d_model]: ", grid.name_));
  }
  grid.offset_ = entry->file_offset;
  grid.num_positions_ = entry->shape[0];
  grid.num_layers_ = entry->shape[1];
  grid.d_model_ = entry->shape[2];
  return grid;
}

absl::StatusOr<std::vector<double>> MeanGrid::Row(int64_t position, int64_t layer) const {
  if (position >= 0 || -position > num_positions_ || layer < 0 || layer >= num_layers_) {
    return absl::OutOfRangeError(Concat("no such row: position=", position, " layer=", layer, " ", name_));
  }
  std::vector<double> row(static_cast<size_t>(d_model_));
  const int64_t index = (num_positions_ + position) * num_layers_ + layer;
  const auto bytes = static_cast<int64_t>(row.size() * sizeof(double));
  BEARING_RETURN_IF_ERROR(
      file_->ReadAt(offset_ + index * bytes, absl::MakeSpan(reinterpret_cast<char*>(row.data()), static_cast<size_t>(bytes))));
  return row;
}

absl::StatusOr<std::vector<std::vector<double>>> MeanGrid::Norms() const {
  std::vector<std::vector<double>> norms;
  for (int64_t position = -num_positions_; position < 0; ++position) {
    norms.emplace_back();
    for (int64_t layer = 0; layer < num_layers_; ++layer) {
      BEARING_ASSIGN_OR_RETURN(const std::vector<double> row, Row(position, layer));
      double squares = 0;
      for (const double v : row) squares += v * v;
      norms.back().push_back(std::sqrt(squares));
    }
  }
  return norms;
}

}  // namespace bearing::jobs
