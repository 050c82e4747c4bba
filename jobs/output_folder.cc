#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "absl/strings/match.h"
#include "jobs/artifacts.h"
#include "jobs/atomic_file.h"
#include "sharding/concat.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kAlwaysHashedBytes = int64_t{64} << 20;
constexpr char kManifest[] = "manifest.json";
constexpr char kClaim[] = ".bearing/job.json";
constexpr char kStages[] = ".bearing/stages";

struct FileState {
  int64_t size = 0;
  int64_t modified_ns = 0;
};

std::optional<FileState> StateOf(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return FileState{status.st_size, status.st_mtim.tv_sec * int64_t{1000000000} + status.st_mtim.tv_nsec};
}

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

absl::Status FileSystemError(std::string_view action, const std::string& path, const std::error_code& error) {
  const std::string text = Concat(action, ": ", error.message(), " path=", path);
  if (error == std::errc::permission_denied) return absl::PermissionDeniedError(text);
  return absl::InternalError(text);
}

std::string MarkPath(const std::string& folder, std::string_view stage) {
  return Concat(folder, "/", kStages, "/", stage, ".json");
}

// A JSON object read from a file; null for anything else, as a damaged mark is the same as none.
json ReadObject(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return nullptr;
  json value = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return value.is_object() ? value : json(nullptr);
}

std::string TextAt(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

int64_t IntegerAt(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : -1;
}

// The mark of a stage if it belongs to this run.
std::optional<json> ReadMark(const std::string& path, const std::string& spec_digest, const std::string& model_digest) {
  json mark = ReadObject(path);
  const bool ours =
      mark.is_object() && TextAt(mark, "spec_digest") == spec_digest && TextAt(mark, "model_digest") == model_digest;
  const bool whole =
      ours && mark.contains("files") && mark["files"].is_array() && mark.contains("seconds") && mark["seconds"].is_number();
  if (!whole) return std::nullopt;
  return mark;
}

// Names that leave the folder never get into a mark or manifest, and are not followed when read from one.
bool StaysInside(const std::string& relative) {
  const fs::path path(relative);
  if (relative.empty() || path.is_absolute()) return false;
  return std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

absl::StatusOr<json> Describe(const std::string& folder, const std::string& relative) {
  if (!StaysInside(relative)) return absl::InvalidArgumentError(Concat("not a name inside the folder: file=", relative));
  const std::string path = Concat(folder, "/", relative);
  const std::optional<FileState> state = StateOf(path);
  if (!state.has_value()) return absl::NotFoundError(Concat("no such file: file=", path));
  BEARING_ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(path));
  return json{{"name", relative}, {"size", state->size}, {"modified_ns", state->modified_ns}, {"sha256", digest}};
}

// A copy of just the content that `file` describes; an error, and no copy, of any other.
absl::Status CopyWhole(const std::string& source, const StageRecord::File& file, const std::string& destination) {
  std::ifstream in(source, std::ios::binary);
  if (!in) return absl::NotFoundError(Concat("no such file: file=", source));
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> out, AtomicFile::Create(destination));
  sharding::Sha256 hash;
  int64_t size = 0;
  for (std::string block(1 << 20, '\0'); in;) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    const std::string_view got(block.data(), static_cast<size_t>(in.gcount()));
    size += in.gcount();
    if (size > file.size) break;
    hash.Update(got);
    BEARING_RETURN_IF_ERROR(out->Append(got));
  }
  BEARING_ASSIGN_OR_RETURN(const std::string digest, hash.Finish());
  if (size != file.size || digest != file.sha256) return absl::DataLossError(Concat("the file has changed: file=", source));
  return out->Commit();
}

// Folders below the output are one stage's each: what it had begun to write there itself goes.
absl::Status BeginFolders(const std::string& output, const StageRecord& from) {
  std::set<std::string> folders;
  for (const StageRecord::File& file : from.files) {
    if (!StaysInside(file.name)) return absl::InvalidArgumentError(Concat("not a name inside the folder: file=", file.name));
    if (fs::path(file.name).has_parent_path()) folders.insert(fs::path(file.name).parent_path().string());
  }
  for (const std::string& name : folders) {
    const std::string folder = Concat(output, "/", name);
    std::error_code error;
    fs::remove_all(folder, error);
    if (!error) fs::create_directories(folder, error);
    if (error) return FileSystemError("cannot begin the folder", folder, error);
  }
  return absl::OkStatus();
}

// `names`: the files that are there whole, after an error as well.
absl::Status CopyStage(const StageRecord& from, const std::string& output, std::vector<std::string>& names) {
  BEARING_RETURN_IF_ERROR(BeginFolders(output, from));
  for (const StageRecord::File& file : from.files) {
    const std::string destination = Concat(output, "/", file.name);
    const auto content = from.contents.find(file.name);
    BEARING_RETURN_IF_ERROR(content != from.contents.end() ? WriteFileAtomically(destination, content->second)
                                                           : CopyWhole(Concat(from.folder, "/", file.name), file, destination));
    names.push_back(file.name);
  }
  return absl::OkStatus();
}

// Files an interrupted write of an earlier attempt left behind.
void RemoveLeftovers(const fs::path& folder) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    std::error_code ignored;
    if (IsTemporaryName(entry.path().filename().string()) && entry.is_regular_file(ignored)) fs::remove(entry.path(), ignored);
  }
}

// All files below `folder` that are artifacts, sorted by name.
absl::StatusOr<std::vector<std::string>> ArtifactNames(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  auto it = fs::recursive_directory_iterator(folder, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (it->is_directory(ignored)) {
      // Our own records, and an edited checkpoint that was never committed.
      const bool own_records = it.depth() == 0 && name == ".bearing";
      if (own_records || absl::EndsWith(name, ".partial")) it.disable_recursion_pending();
      continue;
    }
    const bool manifest = it.depth() == 0 && name == kManifest;
    if (it->is_regular_file(ignored) && !manifest && !IsTemporaryName(name)) {
      names.push_back(it->path().lexically_relative(folder).generic_string());
    }
  }
  if (error) return FileSystemError("cannot list the folder", folder, error);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

absl::Status CheckOutputFolder(const std::string& path, const std::string& spec_digest, FinishedRun finished) {
  if (!Exists(path)) return absl::OkStatus();
  std::error_code error;
  if (!fs::is_directory(path, error)) return absl::AlreadyExistsError(Concat("the output is not a folder: path=", path));
  if (Exists(fs::path(path) / kManifest) && finished == FinishedRun::kRefuse) {
    return absl::AlreadyExistsError(
        Concat("the folder holds a finished run; choose another folder, or remove this one: path=", path));
  }
  const std::string claim = Concat(path, "/", kClaim);
  if (Exists(claim)) {
    const json job = ReadObject(claim);
    if (job.is_null()) return absl::DataLossError(Concat("not a readable job record: file=", claim));
    if (TextAt(job, "spec_digest") == spec_digest) return absl::OkStatus();
    return absl::AlreadyExistsError(
        Concat("the folder holds an unfinished run of another job (other settings, model path or prompts); choose another "
               "folder, or remove this one: path=",
               path));
  }
  auto it = fs::directory_iterator(path, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name != ".bearing") {
      return absl::AlreadyExistsError(
          Concat("the folder holds files that are no run of this job; choose an empty one: path=", path, " file=", name));
    }
  }
  if (error) return FileSystemError("cannot list the folder", path, error);
  return absl::OkStatus();
}

absl::StatusOr<OutputFolder> OutputFolder::Open(const std::string& path, const std::string& spec_json,
                                                const std::string& spec_digest, const std::string& model_digest,
                                                FinishedRun finished) {
  const json spec = json::parse(spec_json, nullptr, /*allow_exceptions=*/false);
  if (spec.is_discarded()) return absl::InvalidArgumentError("the job is not valid JSON");
  BEARING_RETURN_IF_ERROR(CheckOutputFolder(path, spec_digest, finished));
  std::error_code error;
  fs::create_directories(fs::path(path) / kStages, error);
  if (error) return FileSystemError("cannot create the output folder", path, error);
  const json claim = {{"spec_digest", spec_digest}, {"model_digest", model_digest}, {"spec", spec}};
  const absl::Status claimed = CreateFileAtomically(Concat(path, "/", kClaim), claim.dump(2));
  // Somebody else may have claimed the folder since the check.
  if (absl::IsAlreadyExists(claimed)) {
    BEARING_RETURN_IF_ERROR(CheckOutputFolder(path, spec_digest, finished));
  } else {
    BEARING_RETURN_IF_ERROR(claimed);
  }
  for (const char* folder : {".", ".bearing", kStages}) RemoveLeftovers(fs::path(path) / folder);
  OutputFolder result;
  result.path_ = path;
  result.spec_digest_ = spec_digest;
  result.model_digest_ = model_digest;
  return result;
}

std::string OutputFolder::PathOf(std::string_view relative) const { return Concat(path_, "/", relative); }

bool OutputFolder::IsStageDone(std::string_view stage) const {
  const std::optional<json> mark = ReadMark(MarkPath(path_, stage), spec_digest_, model_digest_);
  if (!mark.has_value()) return false;
  for (const json& file : (*mark)["files"]) {
    if (!file.is_object()) return false;
    const std::string name = TextAt(file, "name");
    if (!StaysInside(name)) return false;
    const std::optional<FileState> state = StateOf(PathOf(name));
    if (!state.has_value() || state->size != IntegerAt(file, "size")) return false;
    if (state->size > kAlwaysHashedBytes) continue;
    const absl::StatusOr<std::string> digest = Sha256OfFile(PathOf(name));
    if (!digest.ok() || *digest != TextAt(file, "sha256")) return false;
  }
  return true;
}

absl::Status OutputFolder::MarkStageDone(std::string_view stage, const std::vector<std::string>& files, double seconds) {
  json mark = {{"stage", stage}, {"spec_digest", spec_digest_}, {"model_digest", model_digest_}, {"seconds", seconds}};
  mark["files"] = json::array();
  for (const std::string& file : files) {
    BEARING_ASSIGN_OR_RETURN(json description, Describe(path_, file));
    mark["files"].push_back(std::move(description));
  }
  return WriteFileAtomically(MarkPath(path_, stage), mark.dump(2));
}

int64_t StageRecord::bytes() const {
  int64_t sum = 0;
  for (const File& file : files) sum += file.size;
  return sum;
}

absl::StatusOr<StageRecord> OutputFolder::RecordOf(std::string_view stage) const {
  const std::optional<json> mark = ReadMark(MarkPath(path_, stage), spec_digest_, model_digest_);
  if (!mark.has_value()) return absl::NotFoundError(Concat("the stage is not finished: stage=", stage));
  StageRecord record;
  record.folder = path_;
  for (const json& file : (*mark)["files"]) {
    if (!file.is_object()) return absl::NotFoundError(Concat("not a readable mark: stage=", stage));
    record.files.push_back({TextAt(file, "name"), IntegerAt(file, "size"), TextAt(file, "sha256")});
  }
  return record;
}

absl::StatusOr<bool> OutputFolder::AdoptStage(std::string_view stage, const StageRecord& from) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::string> names;
  if (!CopyStage(from, path_, names).ok()) {
    for (const std::string& name : names) {
      std::error_code ignored;
      fs::remove(PathOf(name), ignored);
    }
    return false;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  BEARING_RETURN_IF_ERROR(MarkStageDone(stage, names, took.count()));
  return true;
}

std::map<std::string, double> OutputFolder::StageSeconds() const {
  std::map<std::string, double> seconds;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(fs::path(path_) / kStages, error)) {
    if (entry.path().extension() != ".json" || IsTemporaryName(entry.path().filename().string())) continue;
    const std::optional<json> mark = ReadMark(entry.path().string(), spec_digest_, model_digest_);
    if (mark.has_value()) seconds[entry.path().stem().string()] = (*mark)["seconds"].get<double>();
  }
  return seconds;
}

bool OutputFolder::IsFinished() const { return Exists(PathOf(kManifest)); }

absl::Status OutputFolder::DropManifest() {
  std::error_code error;
  fs::remove(PathOf(kManifest), error);
  return error ? FileSystemError("cannot remove the manifest", PathOf(kManifest), error) : absl::OkStatus();
}

absl::Status OutputFolder::WriteManifest(const json& provenance) {
  if (Exists(PathOf(kManifest))) return absl::AlreadyExistsError(Concat("the file exists: file=", PathOf(kManifest)));
  // Large files were hashed when their stage ended; that holds while size and time of change are those of the mark.
  std::map<std::string, json> marked;
  for (const auto& [stage, seconds] : StageSeconds()) {
    const std::optional<json> mark = ReadMark(MarkPath(path_, stage), spec_digest_, model_digest_);
    if (!mark.has_value()) continue;
    for (const json& file : (*mark)["files"]) marked[TextAt(file, "name")] = file;
  }
  json manifest = {{"format", "bearing-manifest/1"},
                   {"spec_digest", spec_digest_},
                   {"model_digest", model_digest_},
                   {"provenance", provenance},
                   {"files", json::array()}};
  BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> names, ArtifactNames(path_));
  for (const std::string& name : names) {
    const std::optional<FileState> state = StateOf(PathOf(name));
    const auto found = marked.find(name);
    const bool unchanged = state.has_value() && found != marked.end() && state->size > kAlwaysHashedBytes &&
                           IntegerAt(found->second, "size") == state->size &&
                           IntegerAt(found->second, "modified_ns") == state->modified_ns;
    json description;
    if (unchanged) {
      description = found->second;
    } else {
      BEARING_ASSIGN_OR_RETURN(description, Describe(path_, name));
    }
    description.erase("modified_ns");
    manifest["files"].push_back(std::move(description));
  }
  return CreateFileAtomically(PathOf(kManifest), manifest.dump(2, ' ', false, json::error_handler_t::replace));
}

absl::StatusOr<json> VerifyManifest(const std::string& dir, const std::set<std::string>* only) {
  const std::string path = Concat(dir, "/", kManifest);
  BEARING_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  json manifest = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_array()) {
    return absl::DataLossError(Concat("not a manifest: file=", path));
  }
  for (const json& file : manifest["files"]) {
    const std::string name = file.is_object() ? TextAt(file, "name") : "";
    if (!StaysInside(name)) return absl::DataLossError(Concat("the manifest names a file outside its folder: file=", name));
    if (only != nullptr && !only->contains(name)) continue;
    const std::optional<FileState> state = StateOf(Concat(dir, "/", name));
    if (!state.has_value()) return absl::DataLossError(Concat("a file of the manifest is missing: file=", name));
    const int64_t size = IntegerAt(file, "size");
    if (state->size != size) {
      return absl::DataLossError(
          Concat("the size differs from the manifest: file=", name, " size=", state->size, " manifest=", size));
    }
    BEARING_ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(Concat(dir, "/", name)));
    if (digest != TextAt(file, "sha256")) {
      return absl::DataLossError(Concat("the sha256 differs from the manifest: file=", name));
    }
  }
  return manifest;
}

absl::Status ReplaceArtifacts(const std::string& dir, const std::map<std::string, std::string>& contents) {
  static const std::set<std::string> kNone;
  BEARING_ASSIGN_OR_RETURN(json manifest, VerifyManifest(dir, &kNone));
  for (const auto& entry : contents) {
    const std::string& name = entry.first;
    if (!StaysInside(name)) return absl::InvalidArgumentError(Concat("not a name inside the folder: file=", name));
    BEARING_RETURN_IF_ERROR(WriteFileAtomically(Concat(dir, "/", name), entry.second));
    BEARING_ASSIGN_OR_RETURN(json description, Describe(dir, name));
    description.erase("modified_ns");
    auto& files = manifest["files"];
    const auto old = std::find_if(files.begin(), files.end(), [&](const json& file) { return TextAt(file, "name") == name; });
    if (old == files.end()) {
      files.push_back(std::move(description));
    } else {
      *old = std::move(description);
    }
  }
  return WriteFileAtomically(Concat(dir, "/", kManifest), manifest.dump(2, ' ', false, json::error_handler_t::replace));
}

}  // namespace bearing::jobs
