// A point of `bearing search` as an edit: search.json says how strongly its direction is removed where, and search.safetensors
// beside it holds the direction (docs/formats.md, docs/search.md).
#ifndef BEARING_WORKER_EDIT_SEARCH_POINT_H_
#define BEARING_WORKER_EDIT_SEARCH_POINT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/edit_spec.h"

namespace bearing::edit {

struct SearchPoint {
  DirectionInput input;      // One direction; metadata of the point, sha256 of search.json.
  std::string model_digest;  // Of the model that was searched.
};

// Reads point `index` of the file and fills the directions and strengths of `spec`. InvalidArgument naming file and field for
// anything that `bearing search` does not write, and for a point that is not there; DataLoss when the directions beside it are
// of another search.
absl::StatusOr<SearchPoint> ReadSearchPoint(const std::string& path, int64_t index, EditSpec* spec);

}  // namespace bearing::edit

#endif  // BEARING_WORKER_EDIT_SEARCH_POINT_H_
