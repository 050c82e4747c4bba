#include "jobs/edit_fields.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "absl/strings/str_join.h"
#include "jobs/did_you_mean.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

void CheckStrengths(const bearing::v1::Edit& edit, std::vector<FieldViolation>& out) {
  const auto check = [&out](bool given, double strength, const char* field) {
    if (given && !std::isfinite(strength)) out.push_back({field, Concat("expected a finite number, found ", strength)});
  };
  check(edit.has_strength(), edit.strength(), "edit.strength");
  check(edit.has_embedding_strength(), edit.embedding_strength(), "edit.embedding_strength");
  check(edit.has_attention_strength(), edit.attention_strength(), "edit.attention_strength");
  check(edit.has_mlp_strength(), edit.mlp_strength(), "edit.mlp_strength");
  for (const double strength : edit.layer_strengths()) check(true, strength, "edit.layer_strengths");
  if (edit.first_layer() < 0) {
    out.push_back({"edit.first_layer", Concat("expected a layer of 0 or more, found ", edit.first_layer())});
  }
  if (edit.has_last_layer() && edit.last_layer() < edit.first_layer()) {
    out.push_back({"edit.last_layer", Concat("expected a layer from edit.first_layer on, found ", edit.last_layer())});
  }
}

void CheckForms(const bearing::v1::JobSpec& spec, std::vector<FieldViolation>& out) {
  const bearing::v1::Edit& edit = spec.edit();
  const std::vector<std::string> known = {std::string(kCheckpointForm), std::string(kLoraForm), std::string(kControlVectorForm),
                                          std::string(kDirectionForm)};
  std::set<std::string> seen;
  for (int i = 0; i < edit.form_size(); ++i) {
    const std::string& form = edit.form(i);
    const std::string field = Concat("edit.form[", i, "]");
    if (std::find(known.begin(), known.end(), form) == known.end()) {
      const std::string nearest = NearestName(form, known);
      const std::string hint = nearest.empty() ? "" : Concat("; did you mean \"", nearest, "\"?");
      out.push_back({field, Concat("expected one of ", absl::StrJoin(known, ", "), ", found \"", form, "\"", hint)});
    } else if (!seen.insert(form).second) {
      out.push_back({field, Concat("given twice: ", form)});
    }
  }
  if (seen.contains(std::string(kLoraForm)) && edit.preserve_norms()) {
    out.push_back({"edit.form", "lora cannot hold edit.preserve_norms, which is not of low rank"});
  }
  if (seen.contains(std::string(kLoraForm)) && edit.has_induce()) {
    out.push_back({"edit.form", "lora cannot hold edit.induce, which is no product of matrices"});
  }
  const auto& layers = spec.select().layers();
  const bool none_reached = !layers.empty() && std::all_of(layers.begin(), layers.end(), [](int layer) { return layer < 2; });
  if (seen.contains(std::string(kControlVectorForm)) && none_reached) {
    out.push_back({"edit.form", "control-vector reaches layers from 2 on, and select.layers has none of them"});
  }
}

// An addition removes nothing: what says how to remove would be ignored.
void CheckInduce(const bearing::v1::Edit& edit, std::vector<FieldViolation>& out) {
  if (!edit.has_induce()) return;
  if (!std::isfinite(edit.induce()) || edit.induce() == 0) {
    out.push_back({"edit.induce", Concat("expected a finite number other than 0, found ", edit.induce())});
  }
  const auto exclude = [&out](bool given, const char* field) {
    if (given) out.push_back({field, "cannot be given with edit.induce, which removes nothing"});
  };
  exclude(edit.has_strength(), "edit.strength");
  exclude(edit.has_embedding_strength(), "edit.embedding_strength");
  exclude(edit.has_attention_strength(), "edit.attention_strength");
  exclude(edit.has_mlp_strength(), "edit.mlp_strength");
  exclude(!edit.layer_strengths().empty(), "edit.layer_strengths");
  exclude(edit.has_first_layer(), "edit.first_layer");
  exclude(edit.has_last_layer(), "edit.last_layer");
  exclude(edit.preserve_norms(), "edit.preserve_norms");
  exclude(edit.projected(), "edit.projected");
  exclude(edit.projector(), "edit.projector");
}

}  // namespace

bool WritesForm(const bearing::v1::Edit& edit, std::string_view form) {
  if (edit.form().empty()) return form == kCheckpointForm;
  return std::find(edit.form().begin(), edit.form().end(), form) != edit.form().end();
}

std::vector<FieldViolation> ValidateEdit(const bearing::v1::JobSpec& spec) {
  std::vector<FieldViolation> out;
  CheckStrengths(spec.edit(), out);
  CheckForms(spec, out);
  CheckInduce(spec.edit(), out);
  return out;
}

}  // namespace bearing::jobs
