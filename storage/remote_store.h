// A bucket of S3, Google Cloud Storage or Azure as an object store, through the bridge (bridge/bucket.h says what configures
// it).
#ifndef BEARING_STORAGE_REMOTE_STORE_H_
#define BEARING_STORAGE_REMOTE_STORE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bridge/bucket.h"
#include "storage/object_store.h"

namespace bearing::storage {

// `root` is "s3://bucket". Makes no request; InvalidArgument when the environment does not make sense.
absl::StatusOr<std::unique_ptr<ObjectStore>> MakeRemoteStore(const std::string& root,
                                                             const bridge::BucketOptions& options = {});

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_REMOTE_STORE_H_
