// Where a job works. A job whose `output` is a folder works there; one whose output is in a bucket works in a folder of the
// machine of rank 0, which is published when all stages are done and then removed.
#ifndef BEARING_JOBS_WORK_FOLDER_H_
#define BEARING_JOBS_WORK_FOLDER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bearing/v1/job.pb.h"

namespace bearing::jobs {

// Is the output an address of a bucket?
bool IsOutputInBucket(const bearing::v1::JobSpec& spec);

// The folder to work in: the same for the same spec digest and output, so that a job resumes (storage/staging_folder.h).
absl::StatusOr<std::string> WorkFolder(const bearing::v1::JobSpec& spec, const std::string& spec_digest);

// Before long work: can the output take this job? Looks at the work folder, and at the bucket. AlreadyExists when not. Writes
// nothing.
absl::Status CheckOutputPlace(const bearing::v1::JobSpec& spec, const std::string& spec_digest);

// After the job was published: removes the work folder, but for the logs of a `bearing run` that is still at work
// (.bearing/service), which removes them itself.
void RemoveWorkFolder(const std::string& folder);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_WORK_FOLDER_H_
