// One bucket of S3, Google Cloud Storage or Azure Blob Storage, through the Rust library. Calls block; failed requests are
// retried with growing, random pauses. Endpoint, region and the like come from the environment variables of each cloud
// (AWS_ENDPOINT_URL, AWS_REGION, AWS_ALLOW_HTTP, AWS_VIRTUAL_HOSTED_STYLE_REQUEST, GOOGLE_*, AZURE_*), credentials from its
// usual chain (docs/formats.md).
//
// Bucket is thread-safe; BucketUpload is not. Errors name operation, address and HTTP status, and never hold credentials:
// NotFound, AlreadyExists, PermissionDenied (403), Unauthenticated (401, expired token), Unavailable (retries used up),
// FailedPrecondition (the object changed; other refusals), DataLoss (a range beyond the end), InvalidArgument (the
// environment).
#ifndef BEARING_BRIDGE_BUCKET_H_
#define BEARING_BRIDGE_BUCKET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bearing::bridge {

// Zero means the default, which is in brackets.
struct BucketOptions {
  uint32_t max_retries = 0;         // Of one request [10].
  uint32_t retry_milliseconds = 0;  // After this long a request is not tried again [180,000].
  uint64_t part_bytes = 0;          // Of one request of a large transfer [8 MiB]; S3 wants 5 MiB at least.
  uint32_t concurrency = 0;         // Requests of one transfer under way at the same time [8].
  uint64_t copy_bytes = 0;          // Above this, S3 copies in parts of this size [256 MiB].
};

struct BucketObject {
  std::string key;
  int64_t size = 0;
  std::string etag;
};

struct BucketUploadId {
  std::string key;
  std::string id;
};

class BucketUpload {
 public:
  // Aborts what is not finished.
  ~BucketUpload();

  // Holds at most (concurrency + 2) parts in memory; waits while as many as allowed are under way.
  absl::Status Write(absl::Span<const char> bytes);

  // Makes the object visible.
  absl::Status Finish();

 private:
  friend class Bucket;
  explicit BucketUpload(void* handle) : handle_(handle) {}
  void* handle_;
};

class Bucket {
 public:
  // `uri` is "s3://name", "gs://name" or "az://name". Makes no request.
  static absl::StatusOr<std::unique_ptr<Bucket>> Open(const std::string& uri, const BucketOptions& options);
  ~Bucket();

  absl::StatusOr<BucketObject> Stat(std::string_view key) const;

  // Everything below `prefix` + "/", or of the bucket when it is empty.
  absl::StatusOr<std::vector<BucketObject>> List(std::string_view prefix) const;

  // Fills `out` from `offset` by parallel requests. Unless `etag` is empty, the object must still have it.
  absl::Status Read(std::string_view key, std::string_view etag, int64_t offset, absl::Span<char> out) const;

  // With `create`, AlreadyExists when there is an object with other bytes.
  absl::Status Put(std::string_view key, std::string_view bytes, bool create) const;

  // `size`: of the whole, 0 if unknown.
  absl::StatusOr<std::unique_ptr<BucketUpload>> Upload(std::string_view key, int64_t size) const;

  absl::Status Copy(std::string_view from, std::string_view to) const;
  absl::Status Delete(std::string_view key) const;  // No object is no error.

  absl::StatusOr<std::vector<BucketUploadId>> PendingUploads(std::string_view prefix) const;
  absl::Status Abort(const BucketUploadId& upload) const;

 private:
  explicit Bucket(void* handle) : handle_(handle) {}
  void* handle_;
};

}  // namespace bearing::bridge

#endif  // BEARING_BRIDGE_BUCKET_H_
