// What the operations of ATen need of a batch, as tensors of the device: sent there once a pass, in one copy that the host does
// not wait for, or worked out there when first needed.
#ifndef BEARING_WORKER_MODEL_DEVICE_BATCH_H_
#define BEARING_WORKER_MODEL_DEVICE_BATCH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/model/aten_attention.h"
#include "worker/model/batch_view.h"
#include "worker/model/packed_batch.h"
#include "worker/model/rope.h"

namespace bearing::model {

// Not thread-safe. Letters of shapes: T tokens, N tokens that are read, K vectors of all groups' bases, L layers or 1, S = 1 +
// 2 L write sites, R rotated elements.
class DeviceBatch {
 public:
  DeviceBatch(const PackedBatch& batch, const BatchView& view, const at::Device& device);

  at::Tensor token_ids;       // [T]
  at::Tensor read;            // [N]
  at::Tensor decoded_tokens;  // As in the view.
  at::Tensor decoded_slots;
  at::Tensor basis_LKD;             // fp32; L = 1 where no group's basis differs by layer; undefined when no group ablates.
  at::Tensor strengths_SK;          // fp32, by WriteSite::index(); undefined when all are 1.
  at::Tensor owned_TK, owned_NK;    // fp32: 1 where the vector belongs to the token's group, else 0.
  std::vector<at::Tensor> added_D;  // fp32, of each group of the view; undefined where it adds none.

  // The token's angles, twice [T, 1, R/2] back to back: cos, cos and -sin, sin.
  struct Rotation {
    at::Tensor cos, sin;
  };
  const Rotation& RotationOf(const RopeTable& table);

  // [K, D]
  at::Tensor BasisAt(int64_t layer) const { return basis_LKD[basis_LKD.size(0) > 1 ? layer : 0]; }

  // How the rows of the view attend.
  AttentionPlan& PlanOf(bool only_read) { return *(only_read ? read_rows_ : rows_); }

 private:
  void SendInterventions(const BatchView& view, const at::Device& device);

  struct Made {
    at::Tensor table;  // The cosines of the table it was made from.
    Rotation rotation;
  };

  at::Tensor positions_;  // [T]
  at::Tensor is_long_;    // [T] 0 or 1.
  std::vector<Made> rotations_;
  std::unique_ptr<AttentionPlan> rows_, read_rows_;
};

}  // namespace bearing::model

#endif  // BEARING_WORKER_MODEL_DEVICE_BATCH_H_
