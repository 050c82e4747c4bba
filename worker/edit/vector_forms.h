// The direction by itself (docs/edit.md, "Forms"): a GGUF control vector, and a safetensors file. Each is small, and is written
// and read back by one rank.
#ifndef BEARING_WORKER_EDIT_VECTOR_FORMS_H_
#define BEARING_WORKER_EDIT_VECTOR_FORMS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "sharding/residual_writers.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/edit_plan.h"

namespace bearing::edit {

// A runtime adds direction.N behind block N, counted from 0, and has none for block 0, so a direction read at the input of
// block `layer` is N = layer - 1. InvalidArgument for a layer below 2.
absl::Status CheckControlVectorLayer(int64_t layer, int64_t num_layers);

// One tensor direction.N with factor * vector. Errors of CheckControlVectorLayer.
absl::Status WriteControlVector(const sharding::EditableModel& model, const std::vector<double>& vector, int64_t layer,
                                double factor, const std::string& out);

// Reads it back: `tensor`, `norm`, `sha256`. DataLoss naming the file when it is not what the same arguments write, or not
// finite.
absl::StatusOr<nlohmann::json> VerifyControlVector(const sharding::EditableModel& model, const std::vector<double>& vector,
                                                   int64_t layer, double factor, const std::string& path);

// direction.safetensors with the basis (`direction`, unit norm; [k, d_model] for several), and the first file's mean difference
// and metadata.
absl::Status WriteDirectionFile(const EditPlan& plan, const DirectionInput& input, const std::string& out);

// Reads it back: `directions`, `sha256`. DataLoss naming the file when it does not hold the basis of the plan.
absl::StatusOr<nlohmann::json> VerifyDirectionFile(const EditPlan& plan, const std::string& path);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_VECTOR_FORMS_H_
