#include "worker/edit/verify_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <memory>

#include "sharding/concat.h"
#include "sharding/direct_file.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "worker/edit/file_meter.h"
#include "worker/edit/write_parts.h"

namespace bearing::edit {
namespace {

// A file block by block, from the disk and not from the page cache where that can be: while a block is looked at, it is also
// hashed, and the next one is read.
class FileReader {
 public:
  static absl::StatusOr<std::unique_ptr<FileReader>> Open(const std::string& path) {
    BEARING_ASSIGN_OR_RETURN(sharding::FileDescriptor cached, sharding::OpenForReading(path));
    BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(cached, path));
    std::unique_ptr<FileReader> reader(new FileReader(path, std::move(cached), size));
    reader->StartReading();
    return reader;
  }

  int64_t size() const { return size_; }

  // The next block; empty at the end of the file. It lives until the next call.
  absl::StatusOr<absl::Span<const char>> Next() {
    Wait();
    if (!next_.valid()) return absl::Span<const char>();
    BEARING_RETURN_IF_ERROR(next_.get());
    const absl::Span<const char> block(buffers_[turn_].data(), static_cast<size_t>(std::min(kBlock, size_ - offset_)));
    offset_ += static_cast<int64_t>(block.size());
    turn_ = 1 - turn_;
    StartReading();
    hashing_ = std::async(std::launch::async, [this, block] { sha_.Update(std::string_view(block.data(), block.size())); });
    return block;
  }

  absl::StatusOr<std::string> Finish() {
    Wait();
    return sha_.Finish();
  }

 private:
  static constexpr int64_t kBlock = kMeterBlockBytes;

  FileReader(const std::string& path, sharding::FileDescriptor cached, int64_t size)
      : path_(path), cached_(std::move(cached)), direct_(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)), size_(size) {
    for (sharding::DirectBuffer& buffer : buffers_)
      buffer = sharding::DirectBuffer(std::min(kBlock, size + sharding::kDirectAlignment), 0);
  }

  void StartReading() {
    if (offset_ >= size_) return;
    next_ = std::async(std::launch::async, [this, offset = offset_, to = buffers_[turn_].data()] {
      const int64_t count = std::min(kBlock, size_ - offset);
      int64_t done = 0;
      // A direct read may end at the file's end or at any multiple of the disk's block; the rest goes through the cache.
      if (direct_.is_open() && count == kBlock) {
        done = std::max<int64_t>(0, ::pread(direct_.get(), to, static_cast<size_t>(kBlock), offset));
      }
      return sharding::ReadAt(cached_, offset + done, absl::MakeSpan(to + done, static_cast<size_t>(count - done)), path_);
    });
  }

  void Wait() {
    if (hashing_.valid()) hashing_.get();
  }

  const std::string path_;
  const sharding::FileDescriptor cached_;
  const sharding::FileDescriptor direct_;  // Closed where there are no direct reads.
  const int64_t size_;
  sharding::Sha256 sha_;
  int64_t offset_ = 0;  // Behind the block that was handed out.
  sharding::DirectBuffer buffers_[2];
  int turn_ = 0;
  // Last: they end before what they use.
  std::future<absl::Status> next_;
  std::future<void> hashing_;
};

// Compares the parts of a file with what was written, as their bytes pass by.
class PartComparer {
 public:
  PartComparer(const std::string& path, const std::vector<Part>& parts, size_t file,
               const std::map<size_t, uint64_t>& checksums)
      : path_(path), parts_(parts), file_(file), checksums_(checksums) {
    const auto first = std::partition_point(parts.begin(), parts.end(), [file](const Part& part) { return part.file < file; });
    part_ = static_cast<size_t>(first - parts.begin());
  }

  absl::Status Add(absl::Span<const char> bytes) {
    while (!bytes.empty() && part_ < parts_.size() && parts_[part_].file == file_) {
      const auto take =
          static_cast<size_t>(std::min<int64_t>(parts_[part_].num_bytes - seen_, static_cast<int64_t>(bytes.size())));
      checksum_.Update(bytes.subspan(0, take));
      bytes.remove_prefix(take);
      seen_ += static_cast<int64_t>(take);
      if (seen_ < parts_[part_].num_bytes) break;
      const auto expected = checksums_.find(part_);
      if (expected != checksums_.end() && expected->second != checksum_.Finish()) {
        return absl::DataLossError(Concat("bytes read back differ from those written: file=", path_,
                                          " offset=", parts_[part_].offset, " bytes=", parts_[part_].num_bytes));
      }
      checksum_ = Checksum();
      seen_ = 0;
      ++part_;
    }
    return absl::OkStatus();
  }

 private:
  const std::string& path_;
  const std::vector<Part>& parts_;
  const size_t file_;
  const std::map<size_t, uint64_t>& checksums_;
  size_t part_ = 0;
  int64_t seen_ = 0;
  Checksum checksum_;
};

}  // namespace

nlohmann::json ToJson(const FileCheck& check) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const TensorCheck& tensor : check.tensors) tensors.push_back({tensor.tensor, tensor.residue, tensor.finite});
  return {{"name", check.name}, {"size", check.size}, {"sha256", check.sha256}, {"tensors", tensors}};
}

FileCheck FromJson(const nlohmann::json& note) {
  FileCheck check{.name = note.at("name"), .size = note.at("size"), .sha256 = note.at("sha256"), .tensors = {}};
  for (const nlohmann::json& tensor : note.at("tensors")) {
    check.tensors.push_back({.tensor = tensor.at(0), .residue = tensor.at(1), .finite = tensor.at(2)});
  }
  return check;
}

absl::StatusOr<FileCheck> VerifyFile(const std::string& folder, const EditPlan& plan, size_t file,
                                     const std::vector<Part>& parts, const std::map<size_t, uint64_t>& checksums) {
  const sharding::CopyPlan::File& planned = plan.copy.files[file];
  const std::string path = Concat(folder, "/", planned.name);
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<FileReader> reader, FileReader::Open(path));
  if (reader->size() != planned.size) {
    return absl::DataLossError(
        Concat("written file has another size: file=", path, " want=", planned.size, " got=", reader->size()));
  }
  PartComparer comparer(path, parts, file, checksums);
  FileMeter meter(path, plan, file, [&](size_t tensor) -> absl::StatusOr<std::string> {
    const sharding::OutputTensor& wanted = plan.copy.tensors[tensor];
    const std::string from = Concat(folder, "/", plan.copy.files[wanted.file].name);
    BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor opened, sharding::OpenForReading(from));
    std::string bytes(static_cast<size_t>(wanted.num_bytes), '\0');
    BEARING_RETURN_IF_ERROR(sharding::ReadAt(opened, wanted.offset, absl::MakeSpan(bytes), from));
    return bytes;
  });
  for (;;) {
    BEARING_ASSIGN_OR_RETURN(const absl::Span<const char> block, reader->Next());
    if (block.empty()) break;
    BEARING_RETURN_IF_ERROR(comparer.Add(block));
    BEARING_RETURN_IF_ERROR(meter.Add(block));
  }
  FileCheck check{.name = planned.name, .size = planned.size, .sha256 = {}, .tensors = {}};
  BEARING_ASSIGN_OR_RETURN(check.tensors, meter.Finish());
  BEARING_ASSIGN_OR_RETURN(check.sha256, reader->Finish());
  return check;
}

}  // namespace bearing::edit
