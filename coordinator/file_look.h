// What tells one state of files from another without reading them, for settings that are taken again while the server runs.
#ifndef BEARING_COORDINATOR_FILE_LOOK_H_
#define BEARING_COORDINATOR_FILE_LOOK_H_

#include <string>

#include "absl/types/span.h"

namespace bearing::coordinator {

// Changes whenever somebody writes to one of the files, puts another in its place, takes it away or changes who may read it.
std::string LookOf(absl::Span<const std::string> paths);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_FILE_LOOK_H_
