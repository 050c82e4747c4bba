// The flags that say how strongly directions are removed where, as `edit` and `trace` share them (docs/edit.md, "Strengths").
#ifndef BEARING_WORKER_EDIT_STRENGTH_FLAGS_H_
#define BEARING_WORKER_EDIT_STRENGTH_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/edit/edit_spec.h"

namespace bearing::edit {

struct StrengthFlags {
  std::vector<std::string> strengths;        // --strength "0.8" or "COMPONENT=0.8".
  std::vector<std::string> layer_strengths;  // --layer-strength "LAYER=0.8".
  std::string layers;                        // --layers "FIRST-LAST" or "LAYER"; empty = all.
};

// A finite number, or InvalidArgument naming the flag.
absl::StatusOr<double> ParseStrength(absl::string_view flag, absl::string_view text);

// Fills the strengths of `spec`. InvalidArgument naming the flag, its value and what was expected.
absl::Status ParseStrengths(const StrengthFlags& flags, EditSpec* spec);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_STRENGTH_FLAGS_H_
