// A store whose calls fail from the n-th on, as if the process had died there: what was done stays, nothing more happens.
#ifndef BEARING_TESTS_STORAGE_FAILING_STORE_H_
#define BEARING_TESTS_STORAGE_FAILING_STORE_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "storage/object_store.h"

namespace bearing::storage {

class FailingStore final : public ObjectStore {
 public:
  FailingStore(std::shared_ptr<ObjectStore> inner, int calls) : inner_(std::move(inner)), left_(calls) {}

  bool failed() const { return left_ < 0; }

  std::string Name(std::string_view key) const override { return inner_->Name(key); }
  absl::StatusOr<ObjectInfo> Stat(std::string_view key) const override {
    if (Dead()) return Death();
    return inner_->Stat(key);
  }
  absl::StatusOr<std::vector<ObjectInfo>> List(std::string_view prefix) const override {
    if (Dead()) return Death();
    return inner_->List(prefix);
  }
  absl::Status ReadRange(std::string_view key, int64_t offset, absl::Span<char> out, std::string_view etag) const override {
    return Dead() ? Death() : inner_->ReadRange(key, offset, out, etag);
  }
  absl::Status Put(std::string_view key, std::string_view bytes) override { return Dead() ? Death() : inner_->Put(key, bytes); }
  absl::Status PutIfAbsent(std::string_view key, std::string_view bytes) override {
    return Dead() ? Death() : inner_->PutIfAbsent(key, bytes);
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> Write(std::string_view key, int64_t size) override {
    if (Dead()) return Death();
    absl::StatusOr<std::unique_ptr<ObjectWriter>> writer = inner_->Write(key, size);
    if (!writer.ok()) return writer.status();
    return std::make_unique<Writer>(this, *std::move(writer));
  }
  absl::Status Copy(std::string_view from, std::string_view to) override { return Dead() ? Death() : inner_->Copy(from, to); }
  absl::Status Delete(std::string_view key) override { return Dead() ? Death() : inner_->Delete(key); }
  absl::StatusOr<std::vector<PendingUpload>> PendingUploads(std::string_view prefix) const override {
    if (Dead()) return Death();
    return inner_->PendingUploads(prefix);
  }
  absl::Status Abort(const PendingUpload& upload) override { return Dead() ? Death() : inner_->Abort(upload); }

 private:
  class Writer final : public ObjectWriter {
   public:
    Writer(const FailingStore* store, std::unique_ptr<ObjectWriter> inner) : store_(store), inner_(std::move(inner)) {}
    // The dead abort nothing: the upload stays as it is.
    ~Writer() override {
      if (store_->failed()) static_cast<void>(inner_.release());
    }
    absl::Status Write(absl::Span<const char> bytes) override { return store_->Dead() ? Death() : inner_->Write(bytes); }
    absl::Status Finish() override { return store_->Dead() ? Death() : inner_->Finish(); }

   private:
    const FailingStore* store_;
    std::unique_ptr<ObjectWriter> inner_;
  };

  bool Dead() const { return --left_ < 0; }
  static absl::Status Death() { return absl::CancelledError("the process is dead"); }

  std::shared_ptr<ObjectStore> inner_;
  mutable std::atomic<int> left_;
};

}  // namespace bearing::storage

#endif  // BEARING_TESTS_STORAGE_FAILING_STORE_H_
