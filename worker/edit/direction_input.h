// Directions as they come from files: direction.safetensors of a job, any safetensors file with a tensor `direction` [d] or
// [k, d], or a direction.pt of the reference implementation.
#ifndef BEARING_WORKER_EDIT_DIRECTION_INPUT_H_
#define BEARING_WORKER_EDIT_DIRECTION_INPUT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::edit {

struct DirectionInput {
  std::vector<std::vector<double>> directions;  // As stored, of any length.
  std::vector<double> mean_difference;          // Empty when the file has none.
  std::map<std::string, std::string> metadata;  // concept, layer, position, ...
  std::string sha256;                           // Of the file.

  // What an addition adds: the mean difference, else the first direction as it is stored.
  const std::vector<double>& added() const { return mean_difference.empty() ? directions.front() : mean_difference; }

  // An integer of the metadata.
  std::optional<int64_t> Integer(const std::string& key) const;
};

// InvalidArgument naming the file and tensor for anything that is no direction.
absl::StatusOr<DirectionInput> ReadDirectionInput(const std::string& path);

// The mean of the negative set at a layer and position: a vector `negative_mean` [d], or the means.safetensors of a job
// ([position, layer, d]).
absl::StatusOr<std::vector<double>> ReadNegativeMean(const std::string& path, std::optional<int64_t> layer,
                                                     std::optional<int64_t> position);

// r - (r . m) m / |m|^2: what the direction does not share with the mean of the negative set. InvalidArgument when all but
// nothing is left.
absl::StatusOr<std::vector<double>> WithoutSharedPart(const std::vector<double>& direction, const std::vector<double>& mean);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_DIRECTION_INPUT_H_
