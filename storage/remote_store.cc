#include "storage/remote_store.h"

#include <algorithm>
#include <utility>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::storage {
namespace {

class RemoteWriter final : public ObjectWriter {
 public:
  explicit RemoteWriter(std::unique_ptr<bridge::BucketUpload> upload) : upload_(std::move(upload)) {}
  absl::Status Write(absl::Span<const char> bytes) override { return upload_->Write(bytes); }
  absl::Status Finish() override { return upload_->Finish(); }

 private:
  std::unique_ptr<bridge::BucketUpload> upload_;
};

class RemoteStore final : public ObjectStore {
 public:
  RemoteStore(std::string root, std::unique_ptr<bridge::Bucket> bucket) : root_(std::move(root)), bucket_(std::move(bucket)) {}

  std::string Name(std::string_view key) const override { return Concat(root_, "/", key); }

  absl::StatusOr<ObjectInfo> Stat(std::string_view key) const override {
    BEARING_ASSIGN_OR_RETURN(bridge::BucketObject object, bucket_->Stat(key));
    return ToInfo(std::move(object));
  }

  absl::StatusOr<std::vector<ObjectInfo>> List(std::string_view prefix) const override {
    BEARING_ASSIGN_OR_RETURN(std::vector<bridge::BucketObject> objects, bucket_->List(prefix));
    std::vector<ObjectInfo> found;
    for (bridge::BucketObject& object : objects) found.push_back(ToInfo(std::move(object)));
    std::sort(found.begin(), found.end(), [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
    return found;
  }

  absl::Status ReadRange(std::string_view key, int64_t offset, absl::Span<char> out, std::string_view etag) const override {
    return bucket_->Read(key, etag, offset, out);
  }

  absl::Status Put(std::string_view key, std::string_view bytes) override { return bucket_->Put(key, bytes, /*create=*/false); }

  absl::Status PutIfAbsent(std::string_view key, std::string_view bytes) override {
    return bucket_->Put(key, bytes, /*create=*/true);
  }

  absl::StatusOr<std::unique_ptr<ObjectWriter>> Write(std::string_view key, int64_t size) override {
    BEARING_ASSIGN_OR_RETURN(std::unique_ptr<bridge::BucketUpload> upload, bucket_->Upload(key, size));
    return std::make_unique<RemoteWriter>(std::move(upload));
  }

  absl::Status Copy(std::string_view from, std::string_view to) override { return bucket_->Copy(from, to); }
  absl::Status Delete(std::string_view key) override { return bucket_->Delete(key); }

  absl::StatusOr<std::vector<PendingUpload>> PendingUploads(std::string_view prefix) const override {
    BEARING_ASSIGN_OR_RETURN(const std::vector<bridge::BucketUploadId> uploads, bucket_->PendingUploads(prefix));
    std::vector<PendingUpload> found;
    for (const bridge::BucketUploadId& upload : uploads) found.push_back({.key = upload.key, .id = upload.id});
    return found;
  }

  absl::Status Abort(const PendingUpload& upload) override { return bucket_->Abort({.key = upload.key, .id = upload.id}); }

 private:
  static ObjectInfo ToInfo(bridge::BucketObject object) {
    return {.key = std::move(object.key), .size = object.size, .etag = std::move(object.etag)};
  }

  std::string root_;
  std::unique_ptr<bridge::Bucket> bucket_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ObjectStore>> MakeRemoteStore(const std::string& root, const bridge::BucketOptions& options) {
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<bridge::Bucket> bucket, bridge::Bucket::Open(root, options));
  return std::make_unique<RemoteStore>(root, std::move(bucket));
}

}  // namespace bearing::storage
