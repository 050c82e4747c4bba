// The edit as a PEFT LoRA adapter (docs/edit.md, "Forms"): small, written and read back by one rank.
#ifndef BEARING_WORKER_EDIT_LORA_ADAPTER_H_
#define BEARING_WORKER_EDIT_LORA_ADAPTER_H_

#include <string>

#include "absl/status/status.h"
#include "sharding/weight_files.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/edit_record.h"

namespace bearing::edit {

// Can an adapter of linear layers hold this edit? Unimplemented, naming the tensor, for biases, fused or routed experts,
// preserved norms, additions, quantized weights.
absl::Status CheckLoraFits(const EditPlan& plan, const EditSpec& spec);

// A folder with adapter_config.json and adapter_model.safetensors (F32): for each edited weight W [out, in] the product B A of
// rank k with A = s B^T W and B the negated basis, so that W + B A = W - s B B^T W exactly. Before the folder gets its name it
// is read back; its bearing.json then says under `verification`: `modules`, `largest_residue` (|r^T (W + B A)| / |W|),
// `largest_residue_tensor`, and `sha256` of the tensors' file. AlreadyExists when `out` exists; errors of CheckLoraFits;
// DataLoss naming file and tensor for what is not as it was written, not finite, or not the edit within float32.
absl::Status WriteLora(const sharding::WeightFiles& source, const EditPlan& plan, const EditSpec& spec,
                       const RecordInputs& inputs, const std::string& out);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_LORA_ADAPTER_H_
