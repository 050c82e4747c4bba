// Short lower-case names of the API's enums, as people read them: "collect", "running".
#ifndef BEARING_CLI_JOB_NAMES_H_
#define BEARING_CLI_JOB_NAMES_H_

#include <string>

#include "bearing/v1/job.pb.h"

namespace bearing::cli {

std::string StageName(bearing::v1::Stage stage);            // "collect"; empty when unspecified
std::string StateName(bearing::v1::JobState state);         // "running"
bool HasEnded(bearing::v1::JobState state);                 // Succeeded, failed or cancelled.
bearing::v1::JobState ParseState(const std::string& name);  // Unspecified when there is none of this name.

}  // namespace bearing::cli

#endif  // BEARING_CLI_JOB_NAMES_H_
