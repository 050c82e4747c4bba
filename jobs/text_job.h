// Job files as protobuf text, for who generates jobs from the .proto: JobSpec's own fields, without apiVersion and kind.
#ifndef BEARING_JOBS_TEXT_JOB_H_
#define BEARING_JOBS_TEXT_JOB_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"

namespace bearing::jobs {

// Does the name end as protobuf text does: .textproto, .txtpb or .pbtxt?
bool IsTextJob(std::string_view path);

// Unknown fields (with "did you mean"), wrong types and fields given twice are InvalidArgument with line and column; texts that
// are not UTF-8 with their field. `source` is the text's name for messages.
absl::StatusOr<bearing::v1::JobSpec> ParseTextJob(std::string_view text, std::string_view source);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_TEXT_JOB_H_
