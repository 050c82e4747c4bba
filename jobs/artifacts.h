// The output folder of a job: finished artifacts, stage marks, and the manifest that is written last.
//
//   OUT/means.safetensors geometry.json candidates.json direction.safetensors completions.jsonl evaluation.json
//       costs.json checkpoint/ verify.json report.html report.json manifest.json
//   OUT/.bearing/job.json            the spec and its digest, written first
//   OUT/.bearing/stages/STAGE.json   a finished stage: spec digest, model digest, seconds, sha256 of each file it wrote
//
// A stage counts as finished only if its mark is there, the digests are those of this run and every file it names still has the
// size and sha256 of the mark (files over 64 MiB: size only on resume). Readers trust only manifest.json.
// Not thread-safe; used by rank 0 alone.
#ifndef BEARING_JOBS_ARTIFACTS_H_
#define BEARING_JOBS_ARTIFACTS_H_

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bearing::jobs {

// Writes beside `path`, fsyncs, renames, fsyncs the folder.
absl::Status WriteFileAtomically(const std::string& path, std::string_view content);
absl::StatusOr<std::string> ReadFile(const std::string& path);
absl::StatusOr<std::string> ReadInput(const std::string& address);  // Of a path, or an object in a bucket ("s3://...").
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);  // hex
std::string Sha256OfBytes(std::string_view bytes);                  // hex

// What to do with a finished run of the same digest: a folder that is only worked in (work_folder.h) may hold one that was not
// published to its end.
enum class FinishedRun { kRefuse, kAccept };

// Can `path` take a run with this digest: absent, empty, or an unfinished run of the same digest? AlreadyExists otherwise,
// saying why. Changes nothing. `.bearing/service/` (logs of `bearing run`) may be there already.
absl::Status CheckOutputFolder(const std::string& path, const std::string& spec_digest,
                               FinishedRun finished = FinishedRun::kRefuse);

// What a finished stage wrote, as its mark has it.
struct StageRecord {
  struct File {
    std::string name;  // Relative to the folder.
    int64_t size = 0;
    std::string sha256;
  };
  std::string folder;
  std::vector<File> files;
  // By name, of a folder that will not stay; else empty.
  std::map<std::string, std::string> contents;

  int64_t bytes() const;  // Of all files.
};

class OutputFolder {
 public:
  // Makes the folder if needed and claims it for `spec_digest`. AlreadyExists when it holds a finished run, a run of another
  // digest, or files that are not ours.
  static absl::StatusOr<OutputFolder> Open(const std::string& path, const std::string& spec_json,
                                           const std::string& spec_digest, const std::string& model_digest,
                                           FinishedRun finished = FinishedRun::kRefuse);

  const std::string& path() const { return path_; }
  std::string PathOf(std::string_view relative) const;

  // Is the stage ("collect", ...) finished and intact?
  bool IsStageDone(std::string_view stage) const;

  // Marks the stage finished. `files` are relative to the folder and exist.
  absl::Status MarkStageDone(std::string_view stage, const std::vector<std::string>& files, double seconds);

  // Of a stage that is marked as finished; NotFound if it is not.
  absl::StatusOr<StageRecord> RecordOf(std::string_view stage) const;

  // Copies what the same stage of another run wrote, and marks the stage as finished. False, with nothing left behind, where a
  // file there is gone or has changed since. For stages whose inputs are the same (StageDigest of job_spec.h).
  absl::StatusOr<bool> AdoptStage(std::string_view stage, const StageRecord& from);

  // Stage name -> seconds of the finished stages.
  std::map<std::string, double> StageSeconds() const;

  // Was the manifest written? Only with FinishedRun::kAccept.
  bool IsFinished() const;

  // Removes the manifest: what it names is about to change.
  absl::Status DropManifest();

  // Hashes every artifact and creates manifest.json, only if it is absent. `provenance` goes in as it is: model, prompts,
  // settings, version, results.
  absl::Status WriteManifest(const nlohmann::json& provenance);

 private:
  std::string path_;
  std::string spec_digest_;
  std::string model_digest_;
};

// Reads manifest.json of `dir` and checks size and sha256 of every file it names. DataLoss naming the first that differs.
// With `only`, of those that are listed there.
absl::StatusOr<nlohmann::json> VerifyManifest(const std::string& dir, const std::set<std::string>* only = nullptr);

// Writes files of a finished run anew (name -> content) and enters them in its manifest. Killed in between, the same call mends
// it.
absl::Status ReplaceArtifacts(const std::string& dir, const std::map<std::string, std::string>& contents);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_ARTIFACTS_H_
