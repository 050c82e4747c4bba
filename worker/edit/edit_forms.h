// Other forms of the same edit (docs/edit.md): a PEFT LoRA adapter, a GGUF control vector, the direction itself. Each is small,
// and is written by one rank.
#ifndef BEARING_WORKER_EDIT_EDIT_FORMS_H_
#define BEARING_WORKER_EDIT_EDIT_FORMS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "sharding/residual_writers.h"
#include "sharding/weight_files.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/edit_record.h"

namespace bearing::edit {

// A folder with adapter_config.json and adapter_model.safetensors (F32): for each edited weight W [out, in] the product B A of
// rank k with A = s B^T W and B the negated basis, so that W + B A = W - s B B^T W exactly. AlreadyExists when `out` exists;
// Unimplemented, naming the tensor, for what an adapter of linear layers cannot hold: biases, fused or routed experts,
// preserved norms, additions, quantized weights.
absl::Status WriteLora(const sharding::WeightFiles& source, const EditPlan& plan, const EditSpec& spec,
                       const RecordInputs& inputs, const std::string& out);

// One tensor direction.N with factor * vector. A runtime adds direction.N behind block N, counted from 0, and has none for
// block 0, so a direction read at the input of block `layer` is N = layer - 1. InvalidArgument for a layer below 2.
absl::Status WriteControlVector(const sharding::EditableModel& model, const std::vector<double>& vector, int64_t layer,
                                double factor, const std::string& out);

// direction.safetensors with the basis (`direction`, unit norm; [k, d_model] for several), and the first file's mean difference
// and metadata.
absl::Status WriteDirectionFile(const EditPlan& plan, const DirectionInput& input, const std::string& out);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_EDIT_FORMS_H_
