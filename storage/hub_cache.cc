#include "storage/hub_cache.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"

namespace bearing::storage {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxRevisionBytes = 1024;

// A revision becomes part of a path.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string("/\0", 2)) == std::string::npos;
}

}  // namespace

absl::StatusOr<std::string> ResolveHubCache(const std::string& folder) {
  std::error_code error;
  const fs::path snapshots = fs::path(folder) / "snapshots";
  if (fs::exists(fs::path(folder) / "config.json", error) || !fs::is_directory(snapshots, error)) return folder;

  const absl::StatusOr<std::string> main = sharding::ReadWholeFile(Concat(folder, "/refs/main"), kMaxRevisionBytes);
  if (main.ok()) {
    const std::string revision(absl::StripAsciiWhitespace(*main));
    if (IsPlainName(revision) && fs::is_directory(snapshots / revision, error)) return (snapshots / revision).string();
    return absl::FailedPreconditionError(Concat("the snapshot that refs/main names is not in the cache: folder=", folder));
  }
  std::vector<std::string> found;
  for (fs::directory_iterator it(snapshots, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    found.push_back(it->path().string());
  }
  if (found.size() == 1) return found.front();
  return absl::FailedPreconditionError(
      Concat("name one of the snapshots of this cache: folder=", snapshots.string(), " found=", found.size()));
}

}  // namespace bearing::storage
