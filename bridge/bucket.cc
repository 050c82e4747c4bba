#include "bridge/bucket.h"

#include <cstdlib>
#include <utility>

#include "bridge/call.h"
#include "bridge/include/bearing_bucket.h"

namespace bearing::bridge {
namespace {

bearing_bucket* BucketOf(void* handle) { return static_cast<bearing_bucket*>(handle); }
bearing_upload* UploadOf(void* handle) { return static_cast<bearing_upload*>(handle); }

// The next text of a list, without the NUL that ends it.
std::string_view NextText(std::string_view& rest) {
  const size_t end = rest.find('\0');
  const std::string_view text = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Bucket>> Bucket::Open(const std::string& uri, const BucketOptions& options) {
  const bearing_bucket_options raw = {options.max_retries, options.retry_milliseconds, options.part_bytes, options.concurrency,
                                      options.copy_bytes};
  absl::StatusOr<bearing_bucket*> bucket = CallFor<bearing_bucket*>(bearing_bucket_open, View(uri), &raw);
  if (!bucket.ok()) return bucket.status();
  return std::unique_ptr<Bucket>(new Bucket(*bucket));
}

Bucket::~Bucket() { bearing_bucket_free(BucketOf(handle_)); }

absl::StatusOr<BucketObject> Bucket::Stat(std::string_view key) const {
  absl::StatusOr<bearing_object_info> info = CallFor<bearing_object_info>(bearing_bucket_stat, BucketOf(handle_), View(key));
  if (!info.ok()) return info.status();
  return BucketObject{.key = std::string(key), .size = static_cast<int64_t>(info->size), .etag = Take(info->etag)};
}

absl::StatusOr<std::vector<BucketObject>> Bucket::List(std::string_view prefix) const {
  absl::StatusOr<bearing_owned_text> list = CallFor<bearing_owned_text>(bearing_bucket_list, BucketOf(handle_), View(prefix));
  if (!list.ok()) return list.status();
  const std::string text = Take(*list);
  std::vector<BucketObject> objects;
  for (std::string_view rest = text; !rest.empty();) {
    BucketObject& object = objects.emplace_back();
    object.key = NextText(rest);
    object.size = std::atoll(std::string(NextText(rest)).c_str());
    object.etag = NextText(rest);
  }
  return objects;
}

absl::Status Bucket::Read(std::string_view key, std::string_view etag, int64_t offset, absl::Span<char> out) const {
  return Call(bearing_bucket_read, BucketOf(handle_), View(key), View(etag), static_cast<uint64_t>(offset), out.data(),
              out.size());
}

absl::Status Bucket::Put(std::string_view key, std::string_view bytes, bool create) const {
  return Call(bearing_bucket_put, BucketOf(handle_), View(key), View(bytes), create);
}

absl::StatusOr<std::unique_ptr<BucketUpload>> Bucket::Upload(std::string_view key, int64_t size) const {
  absl::StatusOr<bearing_upload*> upload =
      CallFor<bearing_upload*>(bearing_upload_start, BucketOf(handle_), View(key), static_cast<uint64_t>(size));
  if (!upload.ok()) return upload.status();
  return std::unique_ptr<BucketUpload>(new BucketUpload(*upload));
}

absl::Status Bucket::Copy(std::string_view from, std::string_view to) const {
  return Call(bearing_bucket_copy, BucketOf(handle_), View(from), View(to));
}

absl::Status Bucket::Delete(std::string_view key) const { return Call(bearing_bucket_delete, BucketOf(handle_), View(key)); }

absl::StatusOr<std::vector<BucketUploadId>> Bucket::PendingUploads(std::string_view prefix) const {
  absl::StatusOr<bearing_owned_text> list =
      CallFor<bearing_owned_text>(bearing_bucket_uploads, BucketOf(handle_), View(prefix));
  if (!list.ok()) return list.status();
  const std::string text = Take(*list);
  std::vector<BucketUploadId> uploads;
  for (std::string_view rest = text; !rest.empty();) {
    BucketUploadId& upload = uploads.emplace_back();
    upload.key = NextText(rest);
    upload.id = NextText(rest);
  }
  return uploads;
}

absl::Status Bucket::Abort(const BucketUploadId& upload) const {
  return Call(bearing_bucket_abort, BucketOf(handle_), View(upload.key), View(upload.id));
}

BucketUpload::~BucketUpload() { bearing_upload_free(UploadOf(handle_)); }

absl::Status BucketUpload::Write(absl::Span<const char> bytes) {
  return Call(bearing_upload_write, UploadOf(handle_), View({bytes.data(), bytes.size()}));
}

absl::Status BucketUpload::Finish() { return Call(bearing_upload_finish, UploadOf(handle_)); }

}  // namespace bearing::bridge
