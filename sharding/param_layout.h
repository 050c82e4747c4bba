// The map between tensors on disk and what they are in the model. Loader, shard plan and editor all read this one table.
//
// Every tensor on disk must match an entry and every entry must be on disk with the shape the config asks for; otherwise
// the model is refused with the tensor's name. Shapes are those of the file: a linear weight is [out, in].
#ifndef BEARING_SHARDING_PARAM_LAYOUT_H_
#define BEARING_SHARDING_PARAM_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/model_config.h"

namespace bearing::sharding {

enum class ParamRole {
  kEmbedding,    // [vocab, d_model]
  kUnembedding,  // [vocab, d_model]; absent when tied
  kFinalNorm,    // [d_model]
  kInputNorm,    // [d_model], before attention
  kQuery,        // [heads * head_dim, d_model]
  kQueryBias,    // [heads * head_dim]
  kKey,          // [kv_heads * head_dim, d_model]
  kKeyBias,
  kValue,
  kValueBias,
  kAttentionOut,  // [d_model, heads * head_dim]
  kAttentionOutBias,
  kMlpNorm,  // [d_model], before the MLP
  kGate,     // [intermediate, d_model]
  kGateBias,
  kUp,
  kUpBias,
  kDown,  // [d_model, intermediate]
  kDownBias,
};

// Along which range of the plan a tensor is cut; kNone = every rank holds all of it.
enum class CutBy { kNone, kHeads, kKvHeads, kMlp, kVocab };

struct ParamEntry {
  std::string name;  // On disk.
  ParamRole role = ParamRole::kEmbedding;
  int64_t layer = -1;  // -1 for tensors outside the layers.
  std::vector<int64_t> shape;
  CutBy cut_by = CutBy::kNone;
  int cut_axis = 0;      // 0 = out (rows), 1 = in (columns).
  int64_t cut_unit = 1;  // Elements on the axis for one unit of the range (head_dim for heads, else 1).
  // The output (axis 0 of a linear weight, axis 1 = columns of the embedding, the vector of a bias) is added to the residual
  // stream; see `residual_axis`.
  bool writes_residual = false;
  int residual_axis = 0;  // Which axis of the tensor is d_model; meaningful when writes_residual.
};

// A tensor as it was found on disk.
struct DiskTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
};

class ParamLayout {
 public:
  // All entries of a model with this config, in the order of the forward pass.
  static ParamLayout FromConfig(const ModelConfig& config);

  // FromConfig, checked against the tensors on disk (both ways, shapes included). A tied model may store its unembedding too:
  // it must then be named as such and is kept as an entry. Buffers that old checkpoints store (`rotary_emb.inv_freq`) are
  // ignored. FailedPrecondition naming the tensor.
  static absl::StatusOr<ParamLayout> Match(const ModelConfig& config, absl::Span<const DiskTensor> on_disk);

  const std::vector<ParamEntry>& entries() const { return entries_; }

  // nullptr if the model has no such tensor.
  const ParamEntry* Find(ParamRole role, int64_t layer = -1) const;
  const ParamEntry* FindByName(std::string_view name) const;

 private:
  std::vector<ParamEntry> entries_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_PARAM_LAYOUT_H_
