// Places where a test may end the process: before and after each commit of the store.
//
// BEARING_FAILPOINT=NAME:kill[:N] kills the process (SIGKILL) when it comes to NAME for the Nth time (default: the first). The
// names are those of JobStore. Unset, nothing happens; the variable is read once, when the program starts.
#ifndef BEARING_COORDINATOR_FAILPOINT_H_
#define BEARING_COORDINATOR_FAILPOINT_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace bearing::coordinator {

// Called with the name of the place. Empty = nothing to do.
using Failpoint = std::function<void(const std::string& name)>;

// Of the variable's text; an empty text gives an empty function. InvalidArgument for a text of another form.
absl::StatusOr<Failpoint> ParseFailpoint(const std::string& text);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_FAILPOINT_H_
