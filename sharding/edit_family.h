// Families whose weights can be edited but not run: for each the names of everything that its text model stores, and of what is
// added to the residual stream, with its orientation. Sources: transformers 5.17, models/FAMILY/modeling_FAMILY.py and
// conversion_mapping.py.
//
// A row is data. Names stand behind "layers.N." unless said otherwise; {E} is an expert.
#ifndef BEARING_SHARDING_EDIT_FAMILY_H_
#define BEARING_SHARDING_EDIT_FAMILY_H_

#include <string>
#include <string_view>

#include "absl/types/span.h"

namespace bearing::sharding {

// Which axis of a stored tensor is d_model.
enum class Orientation {
  kOutIn,        // [d_model, in]
  kInOut,        // [in, d_model]
  kVector,       // [d_model]
  kFusedInOut,   // [experts, in, d_model]
  kFusedVector,  // [experts, d_model]
  // [experts, in, d_model] as published, [experts, d_model, in] as transformers 5 writes it. Told apart by the sizes of
  // config.json; refused when they are equal.
  kFusedEither,
};

enum class Component { kEmbedding, kAttention, kMlp, kProjector };

struct WriterRow {
  std::string_view name;
  Component component = Component::kMlp;
  Orientation orientation = Orientation::kOutIn;
  std::string_view norm_behind = {};  // The gain of the norm that the output passes before it is added.
  bool required = false;              // In every layer.
};

struct EditFamily {
  std::string_view model_type;
  std::string_view body = "model.";  // Before "embed_tokens.weight", "layers.", "norm.weight".
  std::string_view unembedding = "lm_head.weight";
  bool has_text_config = false;                // The text model's keys are under `text_config`.
  absl::Span<const WriterRow> writers = {};    // Of a layer.
  absl::Span<const WriterRow> projector = {};  // Whole names; {L} is a running number.
  // Of a layer, tensors that do not write. A name that ends in "." stands for all that begin so.
  absl::Span<const std::string_view> readers = {};
  absl::Span<const std::string_view> other_parts = {};  // Beginnings of whole names: vision, projector.
  std::string_view experts_key = {};                    // Number of routed experts; a second spelling behind it.
  std::string_view experts_key_2 = {};
  std::string_view expert_size_key = {};     // `in` of fused experts.
  std::string_view shared_key = {};          // Above 0: mixture layers have a shared expert.
  std::string_view next_layers_key = {};     // Layers behind the last that predict further tokens; they are left alone.
  std::string_view residual_scale_key = {};  // What attention and MLP write is multiplied with it.
  std::string_view embedding_scale_key = {};
  bool tied_default = false;
  bool always_shared = false;  // Every mixture layer has a shared expert.
};

// nullptr for a model type that has no row.
const EditFamily* FindEditFamily(std::string_view model_type);

// "cohere2, glm4", for messages.
std::string EditOnlyModelTypes();

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_EDIT_FAMILY_H_
