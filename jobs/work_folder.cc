#include "jobs/work_folder.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "jobs/artifacts.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"
#include "storage/location.h"
#include "storage/publisher.h"
#include "storage/staging_folder.h"

namespace bearing::jobs {

// file:// is a folder by now (storage::ResolveAddress).
bool IsOutputInBucket(const bearing::v1::JobSpec& spec) { return storage::HasScheme(spec.output()); }

absl::StatusOr<std::string> WorkFolder(const bearing::v1::JobSpec& spec, const std::string& spec_digest) {
  if (!IsOutputInBucket(spec)) return spec.output();
  return storage::StagingFolder("job", Concat(spec_digest, " ", spec.output()));
}

absl::Status CheckOutputPlace(const bearing::v1::JobSpec& spec, const std::string& spec_digest) {
  if (!IsOutputInBucket(spec)) return CheckOutputFolder(spec.output(), spec_digest);
  BEARING_ASSIGN_OR_RETURN(const std::string folder, WorkFolder(spec, spec_digest));
  BEARING_RETURN_IF_ERROR(CheckOutputFolder(folder, spec_digest, FinishedRun::kAccept));
  // Finished and perhaps published: whoever publishes finds out.
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::path(folder) / storage::kManifestName, error)) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const storage::Location destination, storage::OpenLocation(spec.output()));
  return storage::CheckDestination(destination, {});
}

void RemoveWorkFolder(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path records = fs::path(folder) / ".bearing";
  std::vector<fs::path> all;
  for (const fs::path& parent : {fs::path(folder), records}) {
    for (const fs::directory_entry& entry : fs::directory_iterator(parent, ignored)) all.push_back(entry.path());
  }
  for (const fs::path& path : all) {
    if (path != records && path != records / "service") fs::remove_all(path, ignored);
  }
  // Only while they are empty.
  fs::remove(records, ignored);
  fs::remove(folder, ignored);
}

}  // namespace bearing::jobs
