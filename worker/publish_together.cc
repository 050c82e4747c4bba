#include "worker/publish_together.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "storage/manifest.h"
#include "storage/parallel.h"

namespace bearing::worker {
namespace {

constexpr int64_t kMaxManifestBytes = int64_t{256} << 20;

struct Publication {
  std::string manifest;
  std::vector<storage::PublishedFile> files;  // Largest first.
  std::optional<storage::Publisher> publisher;
};

absl::StatusOr<Publication> Open(const std::string& folder, const storage::Location& destination,
                                 const storage::PublishOptions& options) {
  Publication publication;
  const std::string path = Concat(folder, "/", storage::kManifestName);
  BEARING_ASSIGN_OR_RETURN(publication.manifest, sharding::ReadWholeFile(path, kMaxManifestBytes));
  BEARING_ASSIGN_OR_RETURN(publication.files, storage::ParseManifest(publication.manifest, path));
  std::stable_sort(publication.files.begin(), publication.files.end(),
                   [](const storage::PublishedFile& a, const storage::PublishedFile& b) { return a.size > b.size; });
  BEARING_ASSIGN_OR_RETURN(const std::string attempt, sharding::Sha256Hex(publication.manifest));
  BEARING_ASSIGN_OR_RETURN(publication.publisher, storage::Publisher::Create(destination, attempt, options));
  return publication;
}

}  // namespace

absl::Status PublishTogether(const edit::RankGroup& group, const std::string& folder, const storage::Location& destination,
                             const storage::PublishOptions& options, const PublishProgress& progress) {
  absl::StatusOr<Publication> opened = Open(folder, destination, options);
  BEARING_RETURN_IF_ERROR(group.agree(opened.status()));
  storage::Publisher& publisher = *opened->publisher;
  const std::vector<storage::PublishedFile>& files = opened->files;
  BEARING_ASSIGN_OR_RETURN(const bool finished, BeginTogether(group, publisher));
  if (finished) return absl::OkStatus();

  std::vector<size_t> mine;
  int64_t total = 0;
  for (auto i = static_cast<size_t>(group.rank); i < files.size(); i += static_cast<size_t>(group.ranks)) {
    mine.push_back(i);
    total += files[i].size;
  }
  std::mutex mutex;
  int64_t done = 0;
  BEARING_RETURN_IF_ERROR(edit::WorkTogether(group, [&](const std::atomic<bool>& stop) {
    const absl::Status staged = storage::ParallelFor(mine.size(), options.parallel_files, [&](size_t i) -> absl::Status {
      if (stop) return absl::CancelledError("another rank failed");
      const storage::PublishedFile& file = files[mine[i]];
      BEARING_RETURN_IF_ERROR(publisher.StageLocalFile(file.name, Concat(folder, "/", file.name), file.sha256).status());
      const std::lock_guard<std::mutex> lock(mutex);
      done += file.size;
      return progress ? progress(done, total) : absl::OkStatus();
    });
    return staged.ok() ? staged : publisher.Explained(staged);
  }));
  return edit::WorkTogether(group, [&](const std::atomic<bool>&) -> absl::Status {
    if (group.rank != 0) return absl::OkStatus();
    if (progress) BEARING_RETURN_IF_ERROR(progress(done, total));  // The last word before all of it is there for others.
    return publisher.Commit(files, opened->manifest);
  });
}

absl::Status DiscardStaged(const std::string& folder, const storage::Location& destination) {
  BEARING_ASSIGN_OR_RETURN(Publication publication, Open(folder, destination, {}));
  return publication.publisher->Discard();
}

absl::StatusOr<bool> BeginTogether(const edit::RankGroup& group, storage::Publisher& publisher) {
  std::atomic<bool> finished = false;
  BEARING_RETURN_IF_ERROR(edit::WorkTogether(group, [&](const std::atomic<bool>&) -> absl::Status {
    if (group.rank != 0) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(finished, publisher.Begin());
    return absl::OkStatus();
  }));
  // Only a status can be shared: a bad one says here that an earlier run came to the end.
  return !group.agree(finished ? absl::CancelledError("published already") : absl::OkStatus()).ok();
}

}  // namespace bearing::worker
