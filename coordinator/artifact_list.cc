#include "coordinator/artifact_list.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"
#include "storage/location.h"
#include "storage/manifest.h"

namespace bearing::coordinator {
namespace {

constexpr int kMostArtifacts = 1000;
constexpr int64_t kLargestManifest = int64_t{256} << 20;

}  // namespace

absl::Status ListArtifacts(const bearing::v1::Job& job, const bearing::v1::ListArtifactsRequest& request,
                           bearing::v1::ListArtifactsResponse* response) {
  if (request.page_size() < 0) return absl::InvalidArgumentError("page_size: must not be negative");
  int64_t begin = 0;
  if (!request.page_token().empty() && (!absl::SimpleAtoi(request.page_token(), &begin) || begin < 0)) {
    return absl::InvalidArgumentError("page_token: not a token of this server; start from the first page");
  }
  const std::string path = absl::StrCat(job.spec().output(), "/manifest.json");
  const absl::StatusOr<std::string> text = storage::ReadSmallFile(path, kLargestManifest);
  // A manifest at the place of a job that has not ended well is of another run.
  if (absl::IsNotFound(text.status()) || job.state() != bearing::v1::JOB_STATE_SUCCEEDED) {
    return rpc::WithReason(
        absl::FailedPreconditionError(absl::StrCat("the job has no manifest (yet): name=", job.name(),
                                                   " state=", bearing::v1::JobState_Name(job.state()), " path=", path)),
        "NO_MANIFEST");
  }
  BEARING_RETURN_IF_ERROR(text.status());
  BEARING_ASSIGN_OR_RETURN(const std::vector<storage::PublishedFile> files, storage::ParseManifest(*text, path));
  const int64_t size = request.page_size() == 0 ? kMostArtifacts : std::min(request.page_size(), kMostArtifacts);
  const int64_t end = std::min<int64_t>(begin + size, static_cast<int64_t>(files.size()));
  for (int64_t i = begin; i < end; ++i) {
    bearing::v1::Artifact* artifact = response->add_artifacts();
    artifact->set_name(files[i].name);
    artifact->set_size(files[i].size);
    artifact->set_sha256(files[i].sha256);
  }
  if (end < static_cast<int64_t>(files.size())) response->set_next_page_token(absl::StrCat(end));
  response->set_output(job.spec().output());
  return absl::OkStatus();
}

}  // namespace bearing::coordinator
