#include "storage/publisher.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"
#include "storage/parallel.h"

namespace bearing::storage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kCopyBlock = 8 << 20;
constexpr int64_t kMaxRecordBytes = 512 << 20;
constexpr size_t kMaxAttemptBytes = 128;
constexpr int kCopies = 4;  // Inside the store.
constexpr int kDeletions = 16;

class StagedObject final : public StagedFile {
 public:
  using Record = std::function<absl::StatusOr<PublishedFile>(PublishedFile, std::string_view)>;
  StagedObject(std::string name, std::unique_ptr<ObjectWriter> writer, Record record)
      : name_(std::move(name)), writer_(std::move(writer)), record_(std::move(record)) {}

  absl::Status Write(absl::Span<const char> bytes) override {
    sha_.Update(std::string_view(bytes.data(), bytes.size()));
    size_ += static_cast<int64_t>(bytes.size());
    return writer_->Write(bytes);
  }

  absl::StatusOr<PublishedFile> Finish(std::string_view note) override {
    BEARING_RETURN_IF_ERROR(writer_->Finish());
    BEARING_ASSIGN_OR_RETURN(std::string digest, sha_.Finish());
    return record_({.name = name_, .size = size_, .sha256 = std::move(digest)}, note);
  }

 private:
  std::string name_;
  std::unique_ptr<ObjectWriter> writer_;
  Record record_;
  sharding::Sha256 sha_;
  int64_t size_ = 0;
};

bool IsSafeName(std::string_view name) {
  for (const absl::string_view part : absl::StrSplit(AsAbsl(name), '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return name != kManifestName && !name.starts_with(kAttemptsFolder);
}

// Files of a folder that has no manifest, as one that is still to be written would list them.
absl::StatusOr<std::vector<PublishedFile>> HashFolder(const std::string& folder, int threads) {
  std::vector<PublishedFile> files;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error); !error && it != fs::recursive_directory_iterator();
       it.increment(error)) {
    std::error_code ignored;
    const std::string name = it->path().filename().string();
    if (it->is_directory(ignored)) {
      if (it.depth() == 0 && (name == ".bearing" || name == kAttemptsFolder)) it.disable_recursion_pending();
      continue;
    }
    if (it->is_regular_file(ignored)) {
      files.push_back({.name = it->path().lexically_relative(folder).generic_string(), .size = 0, .sha256 = ""});
    }
  }
  if (error) return absl::UnavailableError(Concat("cannot list folder: ", error.message(), " folder=", folder));
  if (files.empty()) return absl::NotFoundError(Concat("folder has no files to publish: folder=", folder));
  BEARING_RETURN_IF_ERROR(ParallelFor(files.size(), threads, [&](size_t i) -> absl::Status {
    const std::string path = Concat(folder, "/", files[i].name);
    BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::OpenForReading(path));
    BEARING_ASSIGN_OR_RETURN(files[i].size, sharding::FileSize(file, path));
    BEARING_ASSIGN_OR_RETURN(files[i].sha256, sharding::Sha256OfFile(path));
    return absl::OkStatus();
  }));
  return files;
}

}  // namespace

Publisher::Publisher(Location destination, std::string attempt, const PublishOptions& options)
    : destination_(std::move(destination)), attempt_(std::move(attempt)), options_(options) {}

std::string Publisher::AttemptKey() const { return destination_.KeyOf(Concat(kAttemptsFolder, "/", attempt_)); }
std::string Publisher::FileKey(std::string_view name) const { return Concat(AttemptKey(), "/files/", name); }
std::string Publisher::RecordKey(std::string_view name) const { return Concat(AttemptKey(), "/records/", name); }
std::string Publisher::NoteKey(std::string_view name) const { return Concat(AttemptKey(), "/notes/", name); }
std::string Publisher::CommitKey() const { return destination_.KeyOf(Concat(kAttemptsFolder, "/commit.json")); }
std::string Publisher::ManifestKey() const { return destination_.KeyOf(kManifestName); }

absl::StatusOr<Publisher> Publisher::Create(Location destination, std::string attempt, const PublishOptions& options) {
  const bool plain =
      !attempt.empty() && attempt.size() <= kMaxAttemptBytes && std::all_of(attempt.begin(), attempt.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
      });
  if (!plain) {
    return absl::InvalidArgumentError(
        Concat("an attempt is named by letters, digits, dashes and underscores: attempt=", Escaped(attempt)));
  }
  if (destination.uri.key.empty()) {
    return absl::InvalidArgumentError(
        Concat("the destination must be a folder in the bucket, not the bucket itself: uri=", destination.uri.ToString()));
  }
  return Publisher(std::move(destination), std::move(attempt), options);
}

absl::StatusOr<std::optional<std::string>> Publisher::ReadIfThere(const std::string& key) const {
  const absl::StatusOr<ObjectInfo> info = destination_.store->Stat(key);
  if (absl::IsNotFound(info.status())) return std::nullopt;
  BEARING_RETURN_IF_ERROR(info.status());
  if (info->size > kMaxRecordBytes) {
    return absl::DataLossError(Concat("record is too large: file=", destination_.store->Name(key), " size=", info->size));
  }
  std::string text(static_cast<size_t>(info->size), '\0');
  const absl::Status read = destination_.store->ReadRange(key, 0, absl::MakeSpan(text), info->etag);
  if (absl::IsNotFound(read)) return std::nullopt;  // Deleted in between.
  BEARING_RETURN_IF_ERROR(read);
  return text;
}

bool Publisher::IsOurs(std::string_view manifest) const {
  if (manifest == manifest_ || sharding::Sha256Hex(manifest).value_or("") == attempt_) return true;
  const json document = json::parse(manifest, nullptr, /*allow_exceptions=*/false);
  return document.is_object() && document.contains("attempt") && document["attempt"] == attempt_;
}

// Ok unless another writer's manifest is there.
absl::Status Publisher::FinishedByOther() const {
  BEARING_ASSIGN_OR_RETURN(const std::optional<std::string> manifest, ReadIfThere(ManifestKey()));
  if (!manifest.has_value() || IsOurs(*manifest)) return absl::OkStatus();
  return absl::AlreadyExistsError(
      Concat("the destination holds a finished set; choose another, or ask to overwrite it: uri=", Address()));
}

absl::Status Publisher::CheckEmpty() const {
  BEARING_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, destination_.store->List(destination_.uri.key));
  const std::string staged = Concat(destination_.KeyOf(kAttemptsFolder), "/");
  for (const ObjectInfo& object : objects) {
    if (object.key.starts_with(staged)) continue;
    return absl::AlreadyExistsError(Concat("the destination is not empty; choose another, or ask to overwrite it: uri=",
                                           Address(), " file=", destination_.store->Name(object.key)));
  }
  return absl::OkStatus();
}

absl::Status Publisher::SweepUploads(const std::string& prefix, bool staged_too) {
  BEARING_ASSIGN_OR_RETURN(const std::vector<PendingUpload> uploads, destination_.store->PendingUploads(prefix));
  const std::string staged = Concat(destination_.KeyOf(kAttemptsFolder), "/");
  return ParallelFor(uploads.size(), kDeletions, [&](size_t i) {
    const bool spared = !staged_too && uploads[i].key.starts_with(staged);
    return spared ? absl::OkStatus() : destination_.store->Abort(uploads[i]);
  });
}

absl::Status Publisher::DeleteBelow(const std::string& prefix) {
  BEARING_RETURN_IF_ERROR(SweepUploads(prefix));
  BEARING_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, destination_.store->List(prefix));
  return ParallelFor(objects.size(), kDeletions, [&](size_t i) {
    // The commit's record goes last: while it is there, a rerun knows what to do.
    return objects[i].key == CommitKey() ? absl::OkStatus() : destination_.store->Delete(objects[i].key);
  });
}

absl::Status Publisher::Explained(const absl::Status& error) {
  if (options_.overwrite) return error;
  // A winner tidies up when it has finished, under the hands of those who are still at work.
  const absl::Status other = FinishedByOther();
  // Once this attempt has claimed the place, a rerun needs what is staged, whatever a request said that went wrong meanwhile.
  if ((absl::IsAlreadyExists(other) || absl::IsAlreadyExists(error)) && !MayHoldClaim()) Discard().IgnoreError();
  return absl::IsAlreadyExists(other) ? other : error;
}

// Also where it cannot be read.
bool Publisher::MayHoldClaim() const {
  const absl::StatusOr<std::optional<std::string>> commit = ReadIfThere(CommitKey());
  if (!commit.ok()) return true;
  if (!commit->has_value()) return false;
  const json record = json::parse(**commit, nullptr, /*allow_exceptions=*/false);
  return !record.is_object() || !record.contains("attempt") || record["attempt"] == attempt_;
}

absl::Status Publisher::Discard() { return DeleteBelow(AttemptKey()); }

absl::StatusOr<bool> Publisher::Begin() {
  BEARING_ASSIGN_OR_RETURN(const std::optional<std::string> commit, ReadIfThere(CommitKey()));
  const json record = json::parse(commit.value_or(""), nullptr, /*allow_exceptions=*/false);
  const bool whole =
      record.is_object() && record.contains("attempt") && record.contains("manifest") && record["manifest"].is_string();
  const bool claimed_by_us = whole && record["attempt"] == attempt_;
  if (claimed_by_us) manifest_ = record["manifest"].get<std::string>();
  BEARING_ASSIGN_OR_RETURN(const std::optional<std::string> manifest, ReadIfThere(ManifestKey()));
  if (manifest.has_value() && IsOurs(*manifest)) {
    // Finished, perhaps by a writer that died while it tidied up, or with requests under way that arrived later.
    BEARING_RETURN_IF_ERROR(SweepUploads(destination_.uri.key));
    BEARING_RETURN_IF_ERROR(DeleteBelow(destination_.KeyOf(kAttemptsFolder)));
    BEARING_RETURN_IF_ERROR(destination_.store->Delete(CommitKey()));
    return true;
  }
  if (claimed_by_us) {
    BEARING_ASSIGN_OR_RETURN(const std::vector<PublishedFile> files,
                             ParseManifest(manifest_, destination_.store->Name(CommitKey())));
    BEARING_RETURN_IF_ERROR(RollForward(files, manifest_));
    return true;
  }
  if (commit.has_value() && !options_.overwrite) {
    return absl::AlreadyExistsError(Concat(
        "another set is being put at the destination; let its writer finish (run it again if it died), choose another, or "
        "ask to overwrite it: uri=",
        Address()));
  }
  if (!options_.overwrite) {
    BEARING_RETURN_IF_ERROR(FinishedByOther());
    BEARING_RETURN_IF_ERROR(CheckEmpty());
  }
  BEARING_RETURN_IF_ERROR(SweepUploads(AttemptKey()));
  return false;
}

absl::StatusOr<Publisher::StagedRecord> Publisher::RecordOf(std::string_view name) const {
  const std::string address = destination_.store->Name(RecordKey(name));
  BEARING_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadIfThere(RecordKey(name)));
  if (!text.has_value()) return absl::NotFoundError(Concat("no such staged file: file=", address));
  const json record = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const bool whole = record.is_object() && record.contains("size") && record["size"].is_number_unsigned() &&
                     record.contains("sha256") && record["sha256"].is_string();
  if (!whole) return absl::DataLossError(Concat("record of a staged file is damaged: file=", address));
  StagedRecord found;
  found.file = {
      .name = std::string(name), .size = record["size"].get<int64_t>(), .sha256 = record["sha256"].get<std::string>()};
  if (record.contains("note") && record["note"].is_string()) found.note = record["note"].get<std::string>();
  return found;
}

absl::StatusOr<std::optional<PublishedFile>> Publisher::FindStaged(std::string_view name) const {
  const absl::StatusOr<StagedRecord> record = RecordOf(name);
  // A damaged record is no record: the file is staged anew.
  if (absl::IsNotFound(record.status()) || absl::IsDataLoss(record.status())) return std::nullopt;
  BEARING_RETURN_IF_ERROR(record.status());
  const absl::StatusOr<ObjectInfo> object = destination_.store->Stat(FileKey(name));
  if (absl::IsNotFound(object.status())) return std::nullopt;
  BEARING_RETURN_IF_ERROR(object.status());
  if (object->size != record->file.size) return std::nullopt;
  BEARING_ASSIGN_OR_RETURN(const std::string digest, Sha256OfObject(*destination_.store, *object));
  if (digest != record->file.sha256) return std::nullopt;
  return record->file;
}

absl::StatusOr<PublishedFile> Publisher::WriteRecord(PublishedFile file, std::string_view note) {
  json record = {{"size", file.size}, {"sha256", file.sha256}};
  if (!note.empty()) record["note"] = note;
  BEARING_RETURN_IF_ERROR(destination_.store->Put(RecordKey(file.name), record.dump()));
  return file;
}

absl::StatusOr<std::unique_ptr<StagedFile>> Publisher::Stage(std::string_view name, int64_t size) {
  if (!IsSafeName(name)) return absl::InvalidArgumentError(Concat("not a name of a published file: name=", Escaped(name)));
  // A record must never outlive the file it describes.
  BEARING_RETURN_IF_ERROR(destination_.store->Delete(RecordKey(name)));
  BEARING_ASSIGN_OR_RETURN(std::unique_ptr<ObjectWriter> writer, destination_.store->Write(FileKey(name), size));
  return std::make_unique<StagedObject>(
      std::string(name), std::move(writer),
      [this](PublishedFile file, std::string_view note) { return WriteRecord(std::move(file), note); });
}

absl::StatusOr<PublishedFile> Publisher::StageLocalFile(std::string_view name, const std::string& path,
                                                        std::string_view sha256) {
  BEARING_ASSIGN_OR_RETURN(const std::optional<PublishedFile> staged, FindStaged(name));
  if (staged.has_value()) {
    std::string expected(sha256);
    if (expected.empty()) {
      BEARING_ASSIGN_OR_RETURN(expected, sharding::Sha256OfFile(path));
    }
    if (staged->sha256 == expected) return *staged;
  }
  BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::OpenForReading(path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(file, path));
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<StagedFile> to, Stage(name, size));
  std::string block(static_cast<size_t>(std::min(size, kCopyBlock)), '\0');
  for (int64_t offset = 0; offset < size; offset += kCopyBlock) {
    const absl::Span<char> part = absl::MakeSpan(block.data(), static_cast<size_t>(std::min(kCopyBlock, size - offset)));
    BEARING_RETURN_IF_ERROR(sharding::ReadAt(file, offset, part, path));
    BEARING_RETURN_IF_ERROR(to->Write(part));
  }
  BEARING_ASSIGN_OR_RETURN(PublishedFile published, to->Finish());
  if (!sha256.empty() && published.sha256 != sha256) {
    return absl::DataLossError(
        Concat("file changed since its manifest was written: file=", path, " sha256=", published.sha256, " manifest=", sha256));
  }
  return published;
}

std::string Publisher::StagedAddress() const { return destination_.store->Name(Concat(AttemptKey(), "/files")); }

absl::Status Publisher::WriteNote(std::string_view name, std::string_view text) {
  return destination_.store->Put(NoteKey(name), text);
}

absl::StatusOr<std::string> Publisher::ReadNote(std::string_view name) const {
  BEARING_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadIfThere(NoteKey(name)));
  if (text.has_value()) return *text;
  return absl::DataLossError(Concat("a note of the attempt is gone: file=", destination_.store->Name(NoteKey(name))));
}

absl::StatusOr<PublishedFile> Publisher::StageText(std::string_view name, std::string_view text) {
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<StagedFile> to, Stage(name, static_cast<int64_t>(text.size())));
  BEARING_RETURN_IF_ERROR(to->Write(absl::MakeConstSpan(text.data(), text.size())));
  return to->Finish();
}

absl::StatusOr<PublishedFile> Publisher::StageCopy(std::string_view name, std::string_view from_key, std::string_view sha256,
                                                   std::string_view note) {
  if (!IsSafeName(name)) return absl::InvalidArgumentError(Concat("not a name of a published file: name=", Escaped(name)));
  BEARING_RETURN_IF_ERROR(destination_.store->Delete(RecordKey(name)));
  BEARING_RETURN_IF_ERROR(destination_.store->Copy(from_key, FileKey(name)));
  BEARING_ASSIGN_OR_RETURN(const ObjectInfo copy, destination_.store->Stat(FileKey(name)));
  PublishedFile file = {.name = std::string(name), .size = copy.size, .sha256 = std::string(sha256)};
  if (file.sha256.empty()) {
    BEARING_ASSIGN_OR_RETURN(file.sha256, Sha256OfObject(*destination_.store, copy));
  }
  return WriteRecord(std::move(file), note);
}

absl::Status Publisher::CheckStaged(const std::vector<PublishedFile>& files) const {
  BEARING_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, destination_.store->List(Concat(AttemptKey(), "/files")));
  for (const PublishedFile& file : files) {
    const std::string key = FileKey(file.name);
    const auto at = std::lower_bound(objects.begin(), objects.end(), key,
                                     [](const ObjectInfo& object, const std::string& wanted) { return object.key < wanted; });
    const bool there = at != objects.end() && at->key == key && at->size == file.size;
    if (!there)
      return absl::DataLossError(Concat("staged file is gone or has another size: file=", destination_.store->Name(key)));
  }
  return absl::OkStatus();
}

absl::Status Publisher::Claim(const std::string& record) {
  absl::Status claimed = destination_.store->PutIfAbsent(CommitKey(), record);
  if (absl::IsAlreadyExists(claimed) && options_.overwrite) {
    BEARING_RETURN_IF_ERROR(destination_.store->Delete(CommitKey()));
    claimed = destination_.store->PutIfAbsent(CommitKey(), record);
  }
  if (absl::IsAlreadyExists(claimed)) {
    return absl::AlreadyExistsError(Concat("another writer was first; choose another destination: uri=", Address()));
  }
  return claimed;
}

absl::Status Publisher::Commit(const std::vector<PublishedFile>& files, const std::string& manifest) {
  BEARING_ASSIGN_OR_RETURN(std::vector<PublishedFile> listed, ParseManifest(manifest, "the new manifest"));
  const auto by_name = [](const PublishedFile& a, const PublishedFile& b) { return a.name < b.name; };
  std::vector<PublishedFile> given = files;
  std::sort(listed.begin(), listed.end(), by_name);
  std::sort(given.begin(), given.end(), by_name);
  if (listed != given) return absl::InvalidArgumentError("the manifest does not list the files that were staged");
  manifest_ = manifest;

  if (const absl::Status staged = CheckStaged(files); !staged.ok()) return Explained(staged);
  const json record = {{"attempt", attempt_}, {"manifest", manifest}};
  if (const absl::Status claimed = Claim(record.dump()); !claimed.ok()) return Explained(claimed);
  if (!options_.overwrite) {
    // Another writer may have finished, and removed its own claim, between Begin and ours.
    if (const absl::Status other = FinishedByOther(); absl::IsAlreadyExists(other)) {
      BEARING_RETURN_IF_ERROR(destination_.store->Delete(CommitKey()));
      return Explained(other);
    }
  }
  return RollForward(files, manifest);
}

absl::Status Publisher::DeleteOthers(const std::vector<PublishedFile>& files) {
  std::set<std::string> keep;
  for (const PublishedFile& file : files) keep.insert(destination_.KeyOf(file.name));
  const std::string staged = Concat(destination_.KeyOf(kAttemptsFolder), "/");
  BEARING_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, destination_.store->List(destination_.uri.key));
  return ParallelFor(objects.size(), kDeletions, [&](size_t i) {
    const std::string& key = objects[i].key;
    return keep.contains(key) || key.starts_with(staged) ? absl::OkStatus() : destination_.store->Delete(key);
  });
}

// Everything after the claim. May be done again, and by several at once: each step leaves the same bytes.
absl::Status Publisher::RollForward(const std::vector<PublishedFile>& files, const std::string& manifest) {
  BEARING_ASSIGN_OR_RETURN(const std::optional<std::string> old, ReadIfThere(ManifestKey()));
  if (old != manifest) {
    if (old.has_value() && !options_.overwrite) return FinishedByOther();
    // While files are being replaced there is no finished set.
    if (old.has_value()) BEARING_RETURN_IF_ERROR(destination_.store->Delete(ManifestKey()));
    const absl::Status copied = ParallelFor(files.size(), kCopies, [&](size_t i) {
      return destination_.store->Copy(FileKey(files[i].name), destination_.KeyOf(files[i].name));
    });
    if (!copied.ok()) {
      // A second finisher of this attempt may have removed what it had copied.
      BEARING_ASSIGN_OR_RETURN(const std::optional<std::string> now, ReadIfThere(ManifestKey()));
      return now == manifest ? absl::OkStatus() : copied;
    }
    // Copies of large files are uploads too, and a writer that died may have left some. Those of other attempts are left until
    // the manifest is there: a writer that misses its upload looks for it to learn why.
    BEARING_RETURN_IF_ERROR(SweepUploads(destination_.uri.key, /*staged_too=*/false));
    if (options_.overwrite) BEARING_RETURN_IF_ERROR(DeleteOthers(files));
    BEARING_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, destination_.store->List(destination_.uri.key));
    std::set<std::pair<std::string, int64_t>> there;
    for (const ObjectInfo& object : objects) there.emplace(object.key, object.size);
    for (const PublishedFile& file : files) {
      const std::string key = destination_.KeyOf(file.name);
      if (!there.contains({key, file.size})) {
        return absl::DataLossError(Concat("file is not at its place after the copy: file=", destination_.store->Name(key)));
      }
    }
    BEARING_RETURN_IF_ERROR(destination_.store->PutIfAbsent(ManifestKey(), manifest));
  }
  BEARING_RETURN_IF_ERROR(DeleteBelow(destination_.KeyOf(kAttemptsFolder)));
  return destination_.store->Delete(CommitKey());
}

absl::Status CheckDestination(const Location& destination, const PublishOptions& options) {
  if (destination.uri.key.empty()) {
    return absl::InvalidArgumentError(
        Concat("the destination must be a folder in the bucket, not the bucket itself: uri=", destination.uri.ToString()));
  }
  if (options.overwrite) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, destination.store->List(destination.uri.key));
  const std::string staged = Concat(destination.KeyOf(kAttemptsFolder), "/");
  const auto is_staged = [&staged](const ObjectInfo& object) { return object.key.starts_with(staged); };
  const auto other = std::find_if_not(objects.begin(), objects.end(), is_staged);
  if (other == objects.end()) return absl::OkStatus();
  // A commit that was begun has put files in their places before there is a manifest.
  const auto has = [&objects](const std::string& key) {
    return std::any_of(objects.begin(), objects.end(), [&key](const ObjectInfo& object) { return object.key == key; });
  };
  const bool finished = has(destination.KeyOf(kManifestName));
  if (!finished && has(destination.KeyOf(Concat(kAttemptsFolder, "/commit.json")))) return absl::OkStatus();
  return absl::AlreadyExistsError(Concat(finished ? "the destination holds a finished set" : "the destination is not empty",
                                         "; choose another: uri=", destination.uri.ToString(),
                                         " file=", destination.store->Name(other->key)));
}

absl::Status PublishFolder(const std::string& folder, const Location& destination, const PublishOptions& options,
                           const json& extra) {
  absl::StatusOr<std::string> manifest = sharding::ReadWholeFile(Concat(folder, "/", kManifestName), kMaxRecordBytes);
  std::vector<PublishedFile> files;
  if (manifest.ok()) {
    BEARING_ASSIGN_OR_RETURN(files, ParseManifest(*manifest, Concat(folder, "/", kManifestName)));
  } else if (absl::IsNotFound(manifest.status())) {
    BEARING_ASSIGN_OR_RETURN(files, HashFolder(folder, options.parallel_files));
    manifest = MakeManifest(files, extra);
  } else {
    return manifest.status();
  }
  BEARING_ASSIGN_OR_RETURN(const std::string attempt, sharding::Sha256Hex(*manifest));
  BEARING_ASSIGN_OR_RETURN(Publisher publisher, Publisher::Create(destination, attempt, options));
  BEARING_ASSIGN_OR_RETURN(const bool finished, publisher.Begin());
  if (finished) return absl::OkStatus();
  const absl::Status staged = ParallelFor(files.size(), options.parallel_files, [&](size_t i) {
    return publisher.StageLocalFile(files[i].name, Concat(folder, "/", files[i].name), files[i].sha256).status();
  });
  if (!staged.ok()) return publisher.Explained(staged);
  return publisher.Commit(files, *manifest);
}

}  // namespace bearing::storage
