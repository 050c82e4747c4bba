// A [P, L, d_model] fp64 tensor of means.safetensors: mean residuals, or their difference, of every position and layer.
#ifndef BEARING_JOBS_MEAN_GRID_H_
#define BEARING_JOBS_MEAN_GRID_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/random_access_file.h"

namespace bearing::jobs {

// Rows are read when they are asked for. Not thread-safe.
class MeanGrid {
 public:
  // `tensor`: "positive_mean", "negative_mean" or "mean_difference". NotFound; DataLoss naming file and tensor when it is
  // missing or of another shape or type.
  static absl::StatusOr<MeanGrid> Open(const std::string& path, const std::string& tensor);

  int64_t num_positions() const { return num_positions_; }
  int64_t num_layers() const { return num_layers_; }
  int64_t d_model() const { return d_model_; }

  // `position` counts from the end (-1 is the last), as candidates do. OutOfRange.
  absl::StatusOr<std::vector<double>> Row(int64_t position, int64_t layer) const;

  // |row| of each: [position, oldest first][layer].
  absl::StatusOr<std::vector<std::vector<double>>> Norms() const;

 private:
  MeanGrid() = default;

  std::string name_;  // For errors.
  std::unique_ptr<sharding::RandomAccessFile> file_;
  int64_t offset_ = 0;
  int64_t num_positions_ = 0;
  int64_t num_layers_ = 0;
  int64_t d_model_ = 0;
};

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_MEAN_GRID_H_
