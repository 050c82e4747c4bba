// Puts a set of files at a destination so that readers see all of it or nothing, whoever dies when.
//
//   DEST/.attempts/ATTEMPT/files/NAME     staged: written and hashed, nobody reads it
//   DEST/.attempts/ATTEMPT/records/NAME   {"size", "sha256", "note"} of a staged file, written after it
//   DEST/.attempts/ATTEMPT/notes/NAME     what the writers of the attempt tell each other
//   DEST/.attempts/commit.json            the winner: created only if absent when all files are staged
//   DEST/NAME                             copied from the staged files, inside the store
//   DEST/manifest.json                    created only if absent, last; then .attempts is removed
//
// ATTEMPT identifies the content: writers that give the same one must write the same bytes under the same names, and then any
// of them may finish what another began. A rerun keeps staged files whose hash, read back, is that of their record, and redoes
// the rest. Once commit.json is there, every byte is safe in the store, and a rerun only copies. A writer of other content
// loses with AlreadyExists and removes what it staged.
//
// Work is shared by giving each rank a Publisher of the same attempt: ranks stage disjoint files, then one commits.
// Thread-safe. Errors: AlreadyExists (a finished set, a commit of another attempt, or other files are there), DataLoss (a
// staged file is gone or differs), InvalidArgument (bad names), and those of the store.
#ifndef BEARING_STORAGE_PUBLISHER_H_
#define BEARING_STORAGE_PUBLISHER_H_

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/location.h"
#include "storage/manifest.h"

namespace bearing::storage {

struct PublishOptions {
  bool overwrite = false;  // Replace what is there; until the new manifest is there, there is none.
  int parallel_files = 2;  // Staged at the same time; each takes the memory of one upload.
};

// A file being staged.
class StagedFile {
 public:
  virtual ~StagedFile() = default;
  virtual absl::Status Write(absl::Span<const char> bytes) = 0;
  // `note`: what else the writer wants to know about the file when it is run again (Publisher::RecordOf). Once, last.
  virtual absl::StatusOr<PublishedFile> Finish(std::string_view note = "") = 0;
};

class Publisher {
 public:
  // Makes no request.
  static absl::StatusOr<Publisher> Create(Location destination, std::string attempt, const PublishOptions& options);

  // Before anything is staged, by one writer: may this attempt go to the destination? Then aborts uploads that a dead writer of
  // this attempt left behind. True when the attempt is finished already and nothing is left to do.
  absl::StatusOr<bool> Begin();

  // The staged file of this name if it is whole: its record is there, and its bytes, read back, have the record's hash.
  absl::StatusOr<std::optional<PublishedFile>> FindStaged(std::string_view name) const;

  // What the record of a staged file says; its bytes are not looked at. NotFound, DataLoss.
  struct StagedRecord {
    PublishedFile file;
    std::string note;
  };
  absl::StatusOr<StagedRecord> RecordOf(std::string_view name) const;

  // `size` of the whole, 0 if unknown.
  absl::StatusOr<std::unique_ptr<StagedFile>> Stage(std::string_view name, int64_t size);

  // Stages a file of this machine, unless FindStaged has it. `sha256`, if known, is what its bytes must have (DataLoss).
  absl::StatusOr<PublishedFile> StageLocalFile(std::string_view name, const std::string& path, std::string_view sha256 = "");

  // Where staged files are, under their names.
  std::string StagedAddress() const;

  // Replaces, and reads, a note of this attempt. It goes when the attempt is finished.
  absl::Status WriteNote(std::string_view name, std::string_view text);
  absl::StatusOr<std::string> ReadNote(std::string_view name) const;

  // Stages a small file with these bytes.
  absl::StatusOr<PublishedFile> StageText(std::string_view name, std::string_view text);

  // Stages a copy of an object of the destination's own store, made inside the store. Its hash is found by reading it, unless
  // `sha256` is known.
  absl::StatusOr<PublishedFile> StageCopy(std::string_view name, std::string_view from_key, std::string_view sha256 = "",
                                          std::string_view note = "");

  // After all files are staged, by one writer. `manifest` lists exactly `files`.
  absl::Status Commit(const std::vector<PublishedFile>& files, const std::string& manifest);

  // After a step of this attempt failed: that error, or, when the cause is that another writer has won, AlreadyExists; then
  // what this attempt has staged is removed.
  absl::Status Explained(const absl::Status& error);

  // Removes what this attempt has staged and is not committed.
  absl::Status Discard();

  const Location& destination() const { return destination_; }
  const std::string& attempt() const { return attempt_; }

 private:
  Publisher(Location destination, std::string attempt, const PublishOptions& options);

  std::string Address() const { return destination_.uri.ToString(); }
  std::string AttemptKey() const;
  std::string FileKey(std::string_view name) const;
  std::string RecordKey(std::string_view name) const;
  std::string NoteKey(std::string_view name) const;
  std::string CommitKey() const;
  std::string ManifestKey() const;

  absl::StatusOr<std::optional<std::string>> ReadIfThere(const std::string& key) const;
  absl::StatusOr<PublishedFile> WriteRecord(PublishedFile file, std::string_view note);
  bool IsOurs(std::string_view manifest) const;
  absl::Status CheckEmpty() const;
  absl::Status CheckStaged(const std::vector<PublishedFile>& files) const;
  absl::Status Claim(const std::string& record);
  absl::Status RollForward(const std::vector<PublishedFile>& files, const std::string& manifest);
  absl::Status DeleteOthers(const std::vector<PublishedFile>& files);
  absl::Status SweepUploads(const std::string& prefix, bool staged_too = true);
  absl::Status DeleteBelow(const std::string& prefix);
  absl::Status FinishedByOther() const;
  bool MayHoldClaim() const;

  Location destination_;
  std::string attempt_;
  PublishOptions options_;
  std::string manifest_;  // Of this attempt, once it is known: to tell it from another writer's.
};

// Before long work: would a set be accepted here? AlreadyExists for a finished set or other files, unless they are to be
// overwritten; what an earlier run has begun is no obstacle. Writes nothing.
absl::Status CheckDestination(const Location& destination, const PublishOptions& options);

// Publishes a folder of this machine: the files that its manifest.json names, and that manifest; or, when it has none, all its
// files and a manifest of them with `extra`. A file whose bytes are not those of the manifest is DataLoss. May be called again
// after any failure. The attempt is the sha256 of the manifest.
absl::Status PublishFolder(const std::string& folder, const Location& destination, const PublishOptions& options,
                           const nlohmann::json& extra);

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_PUBLISHER_H_
