#include "storage/manifest.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_split.h"
#include "sharding/concat.h"
#include "sharding/sha256.h"
#include "sharding/status_macros.h"

namespace bearing::storage {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "bearing-manifest/1";
constexpr int64_t kMaxManifestBytes = 256 << 20;
constexpr int64_t kHashBlock = 64 << 20;

bool StaysInside(std::string_view name) {
  const std::vector<absl::string_view> parts = absl::StrSplit(AsAbsl(name), '/');
  return std::none_of(parts.begin(), parts.end(), [](absl::string_view part) {
    return part.empty() || part == "." || part == ".." || part.find('\0') != absl::string_view::npos;
  });
}

absl::StatusOr<PublishedFile> ParseFile(const json& entry, std::string_view source) {
  PublishedFile file;
  const bool whole = entry.is_object() && entry.contains("name") && entry["name"].is_string() && entry.contains("size") &&
                     entry["size"].is_number_unsigned() && entry.contains("sha256") && entry["sha256"].is_string();
  if (!whole) return absl::DataLossError(Concat("manifest has an entry without name, size and sha256: file=", source));
  file.name = entry["name"].get<std::string>();
  file.size = entry["size"].get<int64_t>();
  file.sha256 = entry["sha256"].get<std::string>();
  if (!StaysInside(file.name)) {
    return absl::DataLossError(Concat("manifest names a file outside its folder: file=", source, " name=", Escaped(file.name)));
  }
  return file;
}

absl::StatusOr<std::vector<PublishedFile>> ReadManifest(const Location& at) {
  const std::string address = at.store->Name(at.KeyOf(kManifestName));
  BEARING_ASSIGN_OR_RETURN(const ObjectInfo info, at.store->Stat(at.KeyOf(kManifestName)));
  if (info.size > kMaxManifestBytes) return absl::DataLossError(Concat("manifest is too large: file=", address));
  std::string text(static_cast<size_t>(info.size), '\0');
  BEARING_RETURN_IF_ERROR(at.store->ReadRange(info.key, 0, absl::MakeSpan(text), info.etag));
  return ParseManifest(text, address);
}

absl::StatusOr<ObjectInfo> CheckSize(const Location& at, const std::map<std::string, ObjectInfo>& by_key,
                                     const PublishedFile& file) {
  const auto found = by_key.find(at.KeyOf(file.name));
  const std::string address = at.store->Name(at.KeyOf(file.name));
  if (found == by_key.end()) return absl::DataLossError(Concat("a file of the manifest is missing: file=", address));
  if (found->second.size != file.size) {
    return absl::DataLossError(
        Concat("the size differs from the manifest: file=", address, " size=", found->second.size, " manifest=", file.size));
  }
  return found->second;
}

std::map<std::string, ObjectInfo> ByKey(const std::vector<ObjectInfo>& objects) {
  std::map<std::string, ObjectInfo> by_key;
  for (const ObjectInfo& object : objects) by_key.emplace(object.key, object);
  return by_key;
}

}  // namespace

std::string MakeManifest(std::vector<PublishedFile> files, const json& extra) {
  std::sort(files.begin(), files.end(), [](const PublishedFile& a, const PublishedFile& b) { return a.name < b.name; });
  json manifest = extra.is_object() ? extra : json::object();
  manifest["format"] = kFormat;
  manifest["files"] = json::array();
  for (const PublishedFile& file : files) {
    manifest["files"].push_back({{"name", file.name}, {"size", file.size}, {"sha256", file.sha256}});
  }
  return manifest.dump(2, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<std::vector<PublishedFile>> ParseManifest(std::string_view text, std::string_view source) {
  const json manifest = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const bool whole = manifest.is_object() && manifest.contains("format") && manifest["format"] == kFormat &&
                     manifest.contains("files") && manifest["files"].is_array();
  if (!whole) return absl::DataLossError(Concat("not a manifest: file=", source));
  std::vector<PublishedFile> files;
  std::set<std::string> names;
  for (const json& entry : manifest["files"]) {
    BEARING_ASSIGN_OR_RETURN(PublishedFile file, ParseFile(entry, source));
    if (!names.insert(file.name).second) {
      return absl::DataLossError(Concat("manifest names a file twice: file=", source, " name=", Escaped(file.name)));
    }
    files.push_back(std::move(file));
  }
  return files;
}

absl::Status CheckFinished(const Location& at, const std::vector<ObjectInfo>& objects) {
  const std::map<std::string, ObjectInfo> by_key = ByKey(objects);
  if (!by_key.contains(at.KeyOf(kManifestName))) {
    const std::string staged = Concat(at.KeyOf(kAttemptsFolder), "/");
    const bool unfinished =
        std::any_of(objects.begin(), objects.end(), [&](const ObjectInfo& object) { return object.key.starts_with(staged); });
    if (!unfinished) return absl::OkStatus();
    return absl::FailedPreconditionError(Concat("a write to this place was begun and not finished (it has ", kAttemptsFolder,
                                                " and no ", kManifestName, "); finish it first: uri=", at.uri.ToString()));
  }
  const absl::StatusOr<std::vector<PublishedFile>> files = ReadManifest(at);
  BEARING_RETURN_IF_ERROR(files.status());
  for (const PublishedFile& file : *files) BEARING_RETURN_IF_ERROR(CheckSize(at, by_key, file).status());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PublishedFile>> VerifyPublished(const Location& at) {
  BEARING_ASSIGN_OR_RETURN(std::vector<PublishedFile> files, ReadManifest(at));
  BEARING_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, at.store->List(at.uri.key));
  const std::map<std::string, ObjectInfo> by_key = ByKey(objects);
  for (const PublishedFile& file : files) {
    BEARING_ASSIGN_OR_RETURN(const ObjectInfo object, CheckSize(at, by_key, file));
    BEARING_ASSIGN_OR_RETURN(const std::string digest, Sha256OfObject(*at.store, object));
    if (digest != file.sha256) {
      return absl::DataLossError(Concat("the sha256 differs from the manifest: file=", at.store->Name(object.key)));
    }
  }
  return files;
}

absl::StatusOr<std::string> Sha256OfObject(const ObjectStore& store, const ObjectInfo& object) {
  sharding::Sha256 sha;
  std::string block(static_cast<size_t>(std::min(object.size, kHashBlock)), '\0');
  for (int64_t offset = 0; offset < object.size; offset += kHashBlock) {
    const auto part = static_cast<size_t>(std::min(kHashBlock, object.size - offset));
    BEARING_RETURN_IF_ERROR(store.ReadRange(object.key, offset, absl::MakeSpan(block.data(), part), object.etag));
    sha.Update(std::string_view(block.data(), part));
  }
  return sha.Finish();
}

}  // namespace bearing::storage
