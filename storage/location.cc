#include "storage/location.h"

#include <utility>

#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "storage/local_store.h"
#include "storage/remote_store.h"

namespace bearing::storage {

absl::StatusOr<Location> OpenLocation(std::string_view text, const bridge::BucketOptions& options) {
  Location location;
  BEARING_ASSIGN_OR_RETURN(location.uri, ParseUri(text));
  if (location.uri.is_local()) {
    location.store = MakeLocalStore();
  } else {
    BEARING_ASSIGN_OR_RETURN(location.store, MakeRemoteStore(location.uri.Root(), options));
  }
  return location;
}

absl::StatusOr<std::string> ReadSmallFile(std::string_view text, int64_t max_bytes) {
  BEARING_ASSIGN_OR_RETURN(const Location location, OpenLocation(text));
  const std::string& key = location.uri.key;
  BEARING_ASSIGN_OR_RETURN(const ObjectInfo info, location.store->Stat(key));
  if (info.size > max_bytes) {
    return absl::InvalidArgumentError(
        Concat("file is too large: file=", location.uri.ToString(), " size=", info.size, " limit=", max_bytes));
  }
  std::string bytes(static_cast<size_t>(info.size), '\0');
  BEARING_RETURN_IF_ERROR(location.store->ReadRange(key, 0, absl::MakeSpan(bytes), info.etag));
  return bytes;
}

}  // namespace bearing::storage
