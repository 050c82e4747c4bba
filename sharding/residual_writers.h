// What writes the residual stream of a model, whether it can be run here or only edited: one row a tensor on disk.
//
// For families with a decoder it is read off ParamLayout, for the others off the table of edit_family.h. Either way every
// tensor of the text model must be known and every writer must be there with d_model on the axis that the table says; a tensor
// is refused by name otherwise, never guessed from its shape.
#ifndef BEARING_SHARDING_RESIDUAL_WRITERS_H_
#define BEARING_SHARDING_RESIDUAL_WRITERS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "sharding/edit_family.h"
#include "sharding/quantization.h"

namespace bearing::sharding {

struct ResidualWriter {
  std::string tensor;  // The weight's name; of a quantized one, in `Quantization::tensors`.
  Component component = Component::kMlp;
  int64_t layer = -1;  // -1: embedding, projector.
  std::vector<int64_t> shape;
  // true: d_model is the axis before the last, and each column of each matrix is a vector that is written ([out, in]). false:
  // it is the last, and each row is one (embeddings, biases, [in, out]).
  bool columns = false;
  std::string norm_behind;  // Tensor with the gain of the norm that the output passes, or empty.
};

struct EditableModel {
  std::string family;
  bool can_run = false;  // There is a decoder for it.
  int64_t d_model = 0;
  int64_t num_layers = 0;
  bool tied_embeddings = false;
  bool unit_offset_norm = false;  // A norm's gain is 1 + w.
  // What a block writes, and what the embedding gives, is multiplied with these before it reaches the residual stream.
  double residual_scale = 1.0;
  double embedding_scale = 1.0;
  // The config can give every MLP biases under this key, or empty.
  std::string mlp_bias_key;
  std::string embedding;                // Names.
  std::string unembedding;              // That there is, or would be in an untied copy.
  std::vector<ResidualWriter> writers;  // In the order of the forward pass.
  Quantization quantization;
};

// `config_text` is config.json, `source` its path for messages. `with_projector`: also what writes image features into the
// residual stream. Unimplemented for an unknown family or quantization, naming it;
// FailedPrecondition naming the tensor.
absl::StatusOr<EditableModel> FindResidualWriters(std::string_view config_text, std::string_view source,
                                                  absl::Span<const DiskTensor> on_disk, bool with_projector);

std::string_view ComponentName(Component component);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_RESIDUAL_WRITERS_H_
