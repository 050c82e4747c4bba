// manifest.json: the list of files of a finished set, created last. Whoever reads the set trusts only it.
//
// {"format": "bearing-manifest/1", "files": [{"name", "size", "sha256"}, ...]} and any other keys. Names are relative to the
// manifest. The functions are thread-safe.
#ifndef BEARING_STORAGE_MANIFEST_H_
#define BEARING_STORAGE_MANIFEST_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/location.h"

namespace bearing::storage {

inline constexpr std::string_view kManifestName = "manifest.json";

// Staged files are below this folder of the destination until the manifest is there (publisher.h).
inline constexpr std::string_view kAttemptsFolder = ".attempts";

struct PublishedFile {
  std::string name;  // Relative, "/" between parts.
  int64_t size = 0;
  std::string sha256;  // Lower-case hex.

  bool operator==(const PublishedFile&) const = default;
};

// The text of a manifest: `extra` (an object) with the files in the order of their names.
std::string MakeManifest(std::vector<PublishedFile> files, const nlohmann::json& extra);

// DataLoss when the text is not a manifest, or names a file twice or outside its folder. `source` is for messages.
absl::StatusOr<std::vector<PublishedFile>> ParseManifest(std::string_view text, std::string_view source);

// Can what lies at `at` be read as a finished set? Yes for a place without staged files, whoever wrote it. `objects` is the
// list of everything below `at`. FailedPrecondition for staged files without a manifest, DataLoss for a file of the manifest
// that is missing or has another size.
absl::Status CheckFinished(const Location& at, const std::vector<ObjectInfo>& objects);

// Reads the manifest at `at` and hashes every file it names. NotFound without a manifest, DataLoss naming the first file that
// differs.
absl::StatusOr<std::vector<PublishedFile>> VerifyPublished(const Location& at);

// sha256 of an object, read in blocks.
absl::StatusOr<std::string> Sha256OfObject(const ObjectStore& store, const ObjectInfo& object);

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_MANIFEST_H_
