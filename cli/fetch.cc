#include "cli/fetch.h"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "jobs/artifacts.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "storage/location.h"

namespace bearing::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kManifest[] = "manifest.json";
constexpr int64_t kMaxManifestBytes = int64_t{256} << 20;
constexpr int64_t kBlock = int64_t{64} << 20;

struct Artifact {
  std::string name;
  int64_t size = 0;
  std::string sha256;
};

// A plain relative path: no root, no "..", and the same when normalised.
bool IsPlainRelative(const std::string& name) {
  const fs::path path(name);
  if (name.empty() || path.is_absolute() || name.find('\0') != std::string::npos) return false;
  const bool climbs = std::any_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".." || part == "."; });
  return !climbs && path.has_filename() && path.lexically_normal() == path;
}

// Is `path`, links followed, inside the folder? `folder` is canonical.
bool IsInside(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error);
  if (error) return false;
  const auto [end, at] = std::mismatch(folder.begin(), folder.end(), real.begin(), real.end());
  return end == folder.end();
}

// Where the artifacts are: a folder of this machine, or a place in a bucket.
struct Source {
  fs::path folder;  // Canonical; empty for a bucket.
  std::optional<storage::Location> bucket;

  std::string Name(const std::string& name) const {
    return bucket ? bucket->store->Name(bucket->KeyOf(name)) : (folder / name).string();
  }
};

absl::StatusOr<Source> OpenSource(const std::string& address) {
  Source source;
  if (storage::HasScheme(address)) {
    BEARING_ASSIGN_OR_RETURN(source.bucket, storage::OpenLocation(address));
    return source;
  }
  std::error_code error;
  source.folder = fs::canonical(address, error);
  if (error) return absl::NotFoundError(absl::StrCat("no such folder: path=", address));
  return source;
}

absl::StatusOr<std::string> ReadManifestText(const std::string& source) {
  const std::string path = absl::StrCat(source, "/", kManifest);
  absl::StatusOr<std::string> text = storage::ReadSmallFile(path, kMaxManifestBytes);
  if (!absl::IsNotFound(text.status())) return text;
  return absl::NotFoundError(
      absl::StrCat("no manifest: the job has not finished, or its folder is not on this machine: path=", path));
}

absl::StatusOr<std::vector<Artifact>> ParseManifest(const std::string& text, const std::string& source) {
  const std::string path = absl::StrCat(source, "/", kManifest);
  const nlohmann::json manifest = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto damaged = [&path] { return absl::DataLossError(absl::StrCat("not a manifest: path=", path)); };
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_array()) return damaged();
  std::vector<Artifact> artifacts;
  for (const nlohmann::json& file : manifest["files"]) {
    const bool whole = file.is_object() && file.contains("name") && file["name"].is_string() && file.contains("size") &&
                       file["size"].is_number_integer() && file.contains("sha256") && file["sha256"].is_string();
    if (!whole) return damaged();
    artifacts.push_back({file["name"].get<std::string>(), file["size"].get<int64_t>(), file["sha256"].get<std::string>()});
  }
  return artifacts;
}

absl::Status CheckStaysInside(const std::string& name, const Source& source, const fs::path& destination) {
  if (IsPlainRelative(name) && (source.bucket || IsInside(source.folder / name, source.folder)) &&
      IsInside((destination / name).parent_path(), destination)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("the manifest names a file that leads out of the folder: file=", name));
}

absl::Status CheckIsFree(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("the file is there already: path=", path.string()));
}

absl::Status Download(const storage::Location& bucket, const std::string& key, const std::string& to) {
  BEARING_ASSIGN_OR_RETURN(const storage::ObjectInfo object, bucket.store->Stat(key));
  std::ofstream file(to, std::ios::binary | std::ios::trunc);
  std::string block(static_cast<size_t>(std::min(object.size, kBlock)), '\0');
  for (int64_t offset = 0; offset < object.size && file; offset += kBlock) {
    const auto part = static_cast<size_t>(std::min(kBlock, object.size - offset));
    BEARING_RETURN_IF_ERROR(bucket.store->ReadRange(key, offset, absl::MakeSpan(block.data(), part), object.etag));
    file.write(block.data(), static_cast<std::streamsize>(part));
  }
  file.close();
  return file ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("cannot write a file: path=", to));
}

absl::Status CopyTo(const Source& source, const std::string& name, const fs::path& to) {
  std::error_code error;
  fs::create_directories(to.parent_path(), error);
  absl::Status status;
  if (!error && source.bucket) {
    status = Download(*source.bucket, source.bucket->KeyOf(name), to.string());
  } else if (!error) {
    fs::copy_file(source.folder / name, to, fs::copy_options::overwrite_existing, error);
  }
  if (absl::IsNotFound(status) || error == std::errc::no_such_file_or_directory) {
    return absl::DataLossError(absl::StrCat("a file of the manifest is missing: path=", source.Name(name)));
  }
  if (!error) return status;
  return absl::InternalError(absl::StrCat("cannot copy: ", error.message(), " path=", source.Name(name), " to=", to.string()));
}

// A copy under another name gets its own name only when it is what the manifest says, and only if that name is free.
absl::Status Fetch(const Artifact& artifact, const Source& source, const fs::path& destination) {
  const fs::path to = destination / artifact.name;
  const fs::path partial = fs::path(to).concat(absl::StrCat(".partial-", getpid()));
  absl::Status status = CopyTo(source, artifact.name, partial);
  std::error_code error;
  if (status.ok() && fs::file_size(partial, error) != static_cast<uintmax_t>(artifact.size)) {
    status = absl::DataLossError(absl::StrCat("the size differs from the manifest: file=", artifact.name,
                                              " want=", artifact.size, " got=", fs::file_size(partial, error)));
  }
  if (status.ok()) {
    const absl::StatusOr<std::string> digest = jobs::Sha256OfFile(partial.string());
    if (!digest.ok()) {
      status = digest.status();
    } else if (*digest != artifact.sha256) {
      status = absl::DataLossError(absl::StrCat("the sha256 differs from the manifest: file=", artifact.name,
                                                " want=", artifact.sha256, " got=", *digest));
    }
  }
  if (status.ok() && link(partial.c_str(), to.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("cannot create a file: path=", to.string()));
  }
  fs::remove(partial, error);
  return status;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FetchArtifacts(const std::string& source, const std::string& destination,
                                                        const std::string& include) {
  std::error_code error;
  BEARING_ASSIGN_OR_RETURN(const std::string manifest, ReadManifestText(source));
  BEARING_ASSIGN_OR_RETURN(std::vector<Artifact> artifacts, ParseManifest(manifest, source));
  BEARING_ASSIGN_OR_RETURN(const Source from, OpenSource(source));
  const fs::path to = fs::weakly_canonical(fs::absolute(destination), error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("not a folder: path=", destination));
  // Everything that can be known is checked before the first byte is copied.
  for (const Artifact& artifact : artifacts) BEARING_RETURN_IF_ERROR(CheckStaysInside(artifact.name, from, to));
  const size_t all = artifacts.size();
  if (!include.empty()) {
    std::erase_if(artifacts, [&](const Artifact& a) { return fnmatch(include.c_str(), a.name.c_str(), /*flags=*/0) != 0; });
    if (artifacts.empty()) return absl::NotFoundError(absl::StrCat("no artifact matches: include=", include));
  }
  const bool complete = artifacts.size() == all;
  for (const Artifact& artifact : artifacts) BEARING_RETURN_IF_ERROR(CheckIsFree(to / artifact.name));
  if (complete) BEARING_RETURN_IF_ERROR(CheckIsFree(to / kManifest));
  fs::create_directories(to, error);
  if (error) return absl::PermissionDeniedError(absl::StrCat("cannot make a folder: ", error.message(), " path=", to.string()));
  std::vector<std::string> fetched;
  for (const Artifact& artifact : artifacts) {
    BEARING_RETURN_IF_ERROR(Fetch(artifact, from, to));
    fetched.push_back(artifact.name);
  }
  if (complete) {
    // Last, as whoever reads the copy trusts the manifest to be whole.
    BEARING_RETURN_IF_ERROR(sharding::WriteNewFile((to / kManifest).string(), manifest));
    fetched.push_back(kManifest);
  }
  return fetched;
}

}  // namespace bearing::cli
