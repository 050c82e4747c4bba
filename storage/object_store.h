// What files and buckets have in common: whole objects under keys, which appear complete or not at all.
//
// A key is a path without slashes at its ends ("models/a/config.json"); a prefix stands for a folder. Implementations:
// local_store.h (keys are absolute paths without the first slash), remote_store.h (S3, Google Cloud Storage, Azure). Stores are
// thread-safe; a writer is used by one thread at a time. An object is never changed in place.
//
// Errors name the address and the operation: NotFound, AlreadyExists, PermissionDenied, Unauthenticated, Unavailable (tried
// again in vain), FailedPrecondition, DataLoss (shorter than asked for), ResourceExhausted, InvalidArgument (a bad key).
#ifndef BEARING_STORAGE_OBJECT_STORE_H_
#define BEARING_STORAGE_OBJECT_STORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bearing::storage {

struct ObjectInfo {
  std::string key;
  int64_t size = 0;
  std::string etag;  // Changes with the object. Empty where the store has none.
};

// An upload that somebody began and has neither finished nor aborted (locally: a temporary file).
struct PendingUpload {
  std::string key;
  std::string id;
};

// An object that is being written, from front to back, with memory for a few parts. Destroyed before Finish, it leaves nothing
// visible behind.
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  virtual absl::Status Write(absl::Span<const char> bytes) = 0;

  // Makes the object durable and visible, replacing one of this key. Once, last.
  virtual absl::Status Finish() = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // For messages: the full address of a key.
  virtual std::string Name(std::string_view key) const = 0;

  virtual absl::StatusOr<ObjectInfo> Stat(std::string_view key) const = 0;

  // All objects below `prefix`, at any depth, sorted by key. Empty when there are none.
  virtual absl::StatusOr<std::vector<ObjectInfo>> List(std::string_view prefix) const = 0;

  // Fills `out` from `offset`; large ranges are read in parallel. Unless `etag` is empty, the object must still have it.
  virtual absl::Status ReadRange(std::string_view key, int64_t offset, absl::Span<char> out,
                                 std::string_view etag = "") const = 0;

  // Replaces what is there.
  virtual absl::Status Put(std::string_view key, std::string_view bytes) = 0;

  // AlreadyExists when there is an object, unless it holds exactly these bytes: a request that was retried cannot tell whether
  // its first try or somebody else made it. Of many writers at the same time, one wins.
  virtual absl::Status PutIfAbsent(std::string_view key, std::string_view bytes) = 0;

  // `size` of the whole, 0 if it is not known.
  virtual absl::StatusOr<std::unique_ptr<ObjectWriter>> Write(std::string_view key, int64_t size) = 0;

  // Inside the store, replacing what is at `to`. The bytes do not pass through this process.
  virtual absl::Status Copy(std::string_view from, std::string_view to) = 0;

  // No object is no error.
  virtual absl::Status Delete(std::string_view key) = 0;

  // Below `prefix`.
  virtual absl::StatusOr<std::vector<PendingUpload>> PendingUploads(std::string_view prefix) const = 0;
  virtual absl::Status Abort(const PendingUpload& upload) = 0;
};

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_OBJECT_STORE_H_
