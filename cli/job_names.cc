#include "cli/job_names.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace bearing::cli {

std::string StageName(bearing::v1::Stage stage) {
  if (stage == bearing::v1::STAGE_UNSPECIFIED) return "";
  return absl::AsciiStrToLower(absl::StripPrefix(bearing::v1::Stage_Name(stage), "STAGE_"));
}

std::string StateName(bearing::v1::JobState state) {
  return absl::AsciiStrToLower(absl::StripPrefix(bearing::v1::JobState_Name(state), "JOB_STATE_"));
}

bool HasEnded(bearing::v1::JobState state) {
  return state == bearing::v1::JOB_STATE_SUCCEEDED || state == bearing::v1::JOB_STATE_FAILED ||
         state == bearing::v1::JOB_STATE_CANCELLED;
}

bearing::v1::JobState ParseState(const std::string& name) {
  bearing::v1::JobState state = bearing::v1::JOB_STATE_UNSPECIFIED;
  if (!bearing::v1::JobState_Parse(absl::StrCat("JOB_STATE_", absl::AsciiStrToUpper(name)), &state)) {
    return bearing::v1::JOB_STATE_UNSPECIFIED;
  }
  return state;
}

}  // namespace bearing::cli
