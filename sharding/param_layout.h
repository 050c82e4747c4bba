// The map between tensors on disk and what they are in the model. Loader, shard plan and editor all read this one table.
//
// Every tensor on disk must match an entry and every entry must be on disk with the shape the config asks for; otherwise
// the model is refused with the tensor's name. Shapes are those of the file: a linear weight is [out, in].
#ifndef BEARING_SHARDING_PARAM_LAYOUT_H_
#define BEARING_SHARDING_PARAM_LAYOUT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/model_config.h"

namespace bearing::sharding {

struct NamePrefix;

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
  kQueryNorm,     // [head_dim], of each query head
  kKeyNorm,       // [head_dim]
  kAttentionOut,  // [d_model, heads * head_dim]
  kAttentionOutBias,
  kAttentionPostNorm,  // [d_model], of what attention writes
  kMlpNorm,            // [d_model], before the MLP
  kGate,               // [intermediate, d_model]
  kGateBias,
  kUp,
  kUpBias,
  kDown,  // [d_model, intermediate]
  kDownBias,
  kRouter,        // [experts, d_model]
  kExpertGate,    // [expert_size, d_model], one tensor an expert
  kExpertUp,      // [expert_size, d_model]
  kExpertDown,    // [d_model, expert_size]
  kSharedRouter,  // [1, d_model]
  kSharedGate,    // [shared_size, d_model]
  kSharedUp,
  kSharedDown,   // [d_model, shared_size]
  kMlpPostNorm,  // [d_model], of what the MLP writes
};

// Along which range of the plan a tensor is cut; kNone = every rank holds all of it.
enum class CutBy { kNone, kHeads, kKvHeads, kMlp, kExpert, kSharedExpert, kVocab };

// One role's part of a tensor on disk; of most tensors, all of it.
struct ParamEntry {
  std::string name;  // On disk.
  ParamRole role = ParamRole::kEmbedding;
  int64_t layer = -1;   // -1 for tensors outside the layers.
  int64_t expert = -1;  // -1 but for the tensors of one expert.
  std::vector<int64_t> shape;
  int64_t disk_rows = 0;    // Axis 0 of the tensor on disk; above shape[0] when roles share it.
  int64_t disk_offset = 0;  // First row of this part.
  CutBy cut_by = CutBy::kNone;
  int cut_axis = 0;      // 0 = out (rows), 1 = in (columns).
  int64_t cut_unit = 1;  // Elements on the axis for one unit of the range (head_dim for heads, else 1).
  // The output (axis 0 of a linear weight, axis 1 = columns of the embedding, the vector of a bias) is added to the residual
  // stream; see `residual_axis`.
  bool writes_residual = false;
  int residual_axis = 0;  // Which axis of the tensor is d_model; meaningful when writes_residual.
  // The norm of the same layer that the output passes before it is added (layers with post_norms).
  std::optional<ParamRole> norm_behind;
};

// A tensor as it was found on disk.
struct DiskTensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
};

class ParamLayout {
 public:
  ParamLayout() = default;

  // All entries of a model with this config, in the order of the forward pass.
  static ParamLayout FromConfig(const ModelConfig& config);

  // FromConfig, checked against the tensors on disk (both ways, shapes included). A tied model may store its unembedding too:
  // it must then be named as such and is kept as an entry. Foreign tensors (tensor_names.h) are ignored. FailedPrecondition
  // naming the tensor.
  static absl::StatusOr<ParamLayout> Match(const ModelConfig& config, absl::Span<const DiskTensor> on_disk);

  const std::vector<ParamEntry>& entries() const { return entries_; }

  // nullptr if the model has no such tensor.
  const ParamEntry* Find(ParamRole role, int64_t layer = -1, int64_t expert = -1) const;

  // The first entry of a tensor on disk; nullptr if it has none.
  const ParamEntry* FindByName(std::string_view name) const;

  // Name that an unembedding has, or would have in an untied copy.
  const std::string& unembedding_name() const { return unembedding_name_; }

 private:
  // Adds what a model of this config has, in the order of the forward pass, while `is_there` says yes to the entry.
  template <typename IsThere>
  bool AddAll(const ModelConfig& config, const NamePrefix& prefix, const IsThere& is_there);
  void Add(ParamEntry entry);

  std::vector<ParamEntry> entries_;
  std::map<std::tuple<ParamRole, int64_t, int64_t>, size_t> by_role_;
  std::unordered_map<std::string, size_t> by_name_;
  std::string unembedding_name_;
};

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_PARAM_LAYOUT_H_
