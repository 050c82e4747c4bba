// An edit of one checkpoint, decided before any weight is read but the gains of norms: which tensors change, how, and what the
// copy looks like.
//
// A pure function of the source folder and the spec; thread-safe afterwards.
#ifndef BEARING_WORKER_EDIT_EDIT_PLAN_H_
#define BEARING_WORKER_EDIT_EDIT_PLAN_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "sharding/copy_plan.h"
#include "sharding/residual_writers.h"
#include "sharding/weight_files.h"
#include "worker/edit/edit_spec.h"
#include "worker/edit/projection.h"

namespace bearing::edit {

// How the bytes of one output tensor are made.
struct TensorEdit {
  enum class Kind {
    kValues,        // The source's values, changed.
    kFp8Values,     // The same for quantized ones, on fresh scales.
    kFp8Scales,     // Those scales.
    kMxfp4Blocks,   // Those of MXFP4, on fresh scales.
    kMxfp4Scales,   // Those scales.
    kMxfp4Widened,  // MXFP4 as BF16, transposed; changed when strength is not 0.
    kConstant,      // `constant`, repeated in every row.
  };
  Kind kind = Kind::kValues;
  std::string weight;  // Name of the weight: that of the output tensor, but for scales and blocks.
  // The weight as [matrices, rows, columns]; of quantized ones as their values are stored.
  int64_t matrices = 1;
  int64_t rows = 1;
  int64_t columns = 1;
  sharding::DType dtype = sharding::DType::kBF16;  // As written; of kMxfp4Blocks and kMxfp4Scales U8.
  bool by_columns = false;                         // ResidualWriter::columns
  double strength = 0;
  bool preserve_norms = false;
  std::shared_ptr<const Basis> basis;
  std::shared_ptr<const std::vector<double>> add;  // Removal::add, or nullptr.
  std::vector<double> constant;                    // [columns]
  sharding::QuantizedTensor quantized;
  sharding::Component component = sharding::Component::kMlp;
  int64_t layer = -1;

  Removal removal() const { return {basis.get(), strength, preserve_norms, add.get()}; }
};

struct EditPlan {
  sharding::EditableModel model;
  sharding::CopyPlan copy;
  std::map<size_t, TensorEdit> edits;  // By index into copy.tensors.
  bool untied = false;
  std::vector<std::string> edited_tensors;  // Names of changed weights in the order of the forward pass.
  std::shared_ptr<const Basis> basis;       // Of the directions; empty when there are none.
};

// The directions made orthonormal by Gram-Schmidt in fp64. InvalidArgument for one of another length than `d`, zero, not
// finite, or (all but) in the span of those before it.
absl::StatusOr<Basis> MakeBasis(const std::vector<std::vector<double>>& directions, int64_t d);

// InvalidArgument for strengths that are not finite or of layers outside of a model with so many.
absl::Status CheckStrengths(const EditSpec& spec, int64_t num_layers);

// InvalidArgument naming the option for a spec that does not fit the model; Unimplemented for an addition that its family has
// no bias for.
absl::StatusOr<EditPlan> MakeEditPlan(const sharding::WeightFiles& source, const EditSpec& spec);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_EDIT_PLAN_H_
