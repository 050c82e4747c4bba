#include "worker/edit/strength_flags.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "sharding/residual_writers.h"
#include "sharding/status_macros.h"

namespace bearing::edit {
namespace {

absl::Status BadFlag(absl::string_view flag, absl::string_view value, absl::string_view want) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": want ", want, ", got ", value));
}

}  // namespace

absl::StatusOr<double> ParseStrength(absl::string_view flag, absl::string_view text) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) return BadFlag(flag, text, "a number");
  return value;
}

absl::Status ParseStrengths(const StrengthFlags& flags, EditSpec* spec) {
  for (const std::string& text : flags.strengths) {
    const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    BEARING_ASSIGN_OR_RETURN(const double value, ParseStrength("--strength", parts.back()));
    if (parts.size() == 1) {
      spec->strength = value;
      continue;
    }
    bool found = false;
    for (const sharding::Component component : {sharding::Component::kEmbedding, sharding::Component::kAttention,
                                                sharding::Component::kMlp, sharding::Component::kProjector}) {
      if (parts[0] != sharding::ComponentName(component)) continue;
      spec->components[component] = value;
      found = true;
    }
    if (!found) return BadFlag("--strength", text, "NUMBER, embedding=, attention=, mlp= or projector=NUMBER");
  }
  for (const std::string& text : flags.layer_strengths) {
    const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    int64_t layer = 0;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &layer)) return BadFlag("--layer-strength", text, "LAYER=NUMBER");
    BEARING_ASSIGN_OR_RETURN(spec->layers[layer], ParseStrength("--layer-strength", parts[1]));
  }
  if (flags.layers.empty()) return absl::OkStatus();
  const std::vector<std::string> ends = absl::StrSplit(flags.layers, '-');
  int64_t last = 0;
  if (ends.size() > 2 || !absl::SimpleAtoi(ends.front(), &spec->first_layer) || !absl::SimpleAtoi(ends.back(), &last)) {
    return BadFlag("--layers", flags.layers, "FIRST-LAST");
  }
  spec->last_layer = last;
  return absl::OkStatus();
}

}  // namespace bearing::edit
