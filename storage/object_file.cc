#include "storage/object_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::storage {
namespace {

constexpr int64_t kReadAhead = 256 << 10;

// Enough for several requests at the same time.
constexpr int64_t kBlockBytes = 64 << 20;

class ObjectFile final : public sharding::RandomAccessFile {
 public:
  ObjectFile(std::shared_ptr<ObjectStore> store, ObjectInfo info, std::string start)
      : store_(std::move(store)), info_(std::move(info)), name_(store_->Name(info_.key)), start_(std::move(start)) {}

  const std::string& name() const override { return name_; }
  int64_t size() const override { return info_.size; }
  int64_t block_bytes() const override { return kBlockBytes; }
  std::string version() const override { return info_.etag; }

  absl::Status ReadAt(int64_t offset, absl::Span<char> out) const override {
    const auto wanted = static_cast<int64_t>(out.size());
    if (wanted > info_.size - offset) {
      return absl::DataLossError(
          Concat("file ends early: file=", name_, " offset=", offset, " bytes missing=", wanted - (info_.size - offset)));
    }
    if (offset + wanted <= static_cast<int64_t>(start_.size())) {
      std::memcpy(out.data(), start_.data() + offset, out.size());
      return absl::OkStatus();
    }
    return store_->ReadRange(info_.key, offset, out, info_.etag);
  }

 private:
  std::shared_ptr<ObjectStore> store_;
  ObjectInfo info_;
  std::string name_;
  std::string start_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<sharding::RandomAccessFile>> OpenObject(std::shared_ptr<ObjectStore> store, std::string key) {
  BEARING_ASSIGN_OR_RETURN(ObjectInfo info, store->Stat(key));
  std::string start(static_cast<size_t>(std::min(info.size, kReadAhead)), '\0');
  BEARING_RETURN_IF_ERROR(store->ReadRange(key, 0, absl::MakeSpan(start), info.etag));
  return std::make_unique<ObjectFile>(std::move(store), std::move(info), std::move(start));
}

}  // namespace bearing::storage
