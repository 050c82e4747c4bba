// A place in a store: what an address leads to.
//
// Copies share the store. Thread-safe.
#ifndef BEARING_STORAGE_LOCATION_H_
#define BEARING_STORAGE_LOCATION_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "bridge/bucket.h"
#include "storage/object_store.h"
#include "storage/uri.h"

namespace bearing::storage {

struct Location {
  Uri uri;
  std::shared_ptr<ObjectStore> store;

  // The key of a name below this place.
  std::string KeyOf(std::string_view name) const { return JoinKey(uri.key, name); }
};

// Parses `text` and makes its store. Makes no request. `options` are for buckets.
absl::StatusOr<Location> OpenLocation(std::string_view text, const bridge::BucketOptions& options = {});

// A small file at a path or address, whole. InvalidArgument when it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(std::string_view text, int64_t max_bytes);

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_LOCATION_H_
