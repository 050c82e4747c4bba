// What a finished job left, by its manifest. Reads the manifest at each call; stateless and thread-safe.
#ifndef BEARING_COORDINATOR_ARTIFACT_LIST_H_
#define BEARING_COORDINATOR_ARTIFACT_LIST_H_

#include "absl/status/status.h"
#include "bearing/v1/job.pb.h"
#include "bearing/v1/jobs_service.pb.h"

namespace bearing::coordinator {

// FailedPrecondition (reason NO_MANIFEST) for a job without a manifest; InvalidArgument for a wrong page; DataLoss for a
// manifest that is damaged.
absl::Status ListArtifacts(const bearing::v1::Job& job, const bearing::v1::ListArtifactsRequest& request,
                           bearing::v1::ListArtifactsResponse* response);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_ARTIFACT_LIST_H_
