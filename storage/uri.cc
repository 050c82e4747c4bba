#include "storage/uri.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/str_split.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::storage {
namespace {

constexpr std::string_view kSeparator = "://";
constexpr std::array<std::string_view, 3> kRemoteSchemes = {"s3", "gs", "az"};
constexpr size_t kMaxKeyBytes = 1024;  // Of S3, the strictest.
constexpr size_t kMaxBucketBytes = 222;

absl::Status Wrong(std::string_view text, std::string_view what) {
  return absl::InvalidArgumentError(Concat("bad address: ", what, ": uri=", Escaped(text)));
}

bool IsSchemeName(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
  });
}

bool IsBucketName(std::string_view text) {
  return text.size() <= kMaxBucketBytes && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
                  c == '.';
         });
}

absl::StatusOr<std::string> PercentDecoded(std::string_view text) {
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const int high = i + 2 < text.size() ? digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? digit(text[i + 2]) : -1;
    if (high < 0 || low < 0) return Wrong(text, "% is not followed by two hex digits");
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return out;
}

absl::Status CheckKey(std::string_view key, std::string_view text) {
  if (key.size() > kMaxKeyBytes) return Wrong(text.substr(0, 80), "the key is longer than 1024 bytes");
  for (const absl::string_view part : absl::StrSplit(AsAbsl(key), '/')) {
    if (part.empty() && !key.empty()) return Wrong(text, "an empty part between slashes");
    if (part == "." || part == "..") return Wrong(text, "parts . and .. are not followed");
  }
  const bool control = std::any_of(key.begin(), key.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  return control ? Wrong(text, "control characters") : absl::OkStatus();
}

absl::StatusOr<Uri> LocalUri(std::string_view path) {
  if (path.empty()) return Wrong(path, "the path is empty");
  if (path.find('\0') != std::string_view::npos) return Wrong(path, "control characters");
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(std::filesystem::path(path), error);
  if (error) return absl::InternalError(Concat("cannot tell the current folder: ", error.message()));
  std::string normal = absolute.lexically_normal().string();
  while (!normal.empty() && normal.back() == '/') normal.pop_back();
  return Uri{.scheme = "file", .bucket = "", .key = normal.empty() ? "" : normal.substr(1)};
}

absl::StatusOr<Uri> FileUri(std::string_view rest, std::string_view text) {
  // file:///path or file://localhost/path.
  const size_t slash = rest.find('/');
  const std::string_view host = rest.substr(0, slash);
  if (slash == std::string_view::npos || (!host.empty() && host != "localhost")) {
    return Wrong(text, "file:// is followed by an absolute path (file:///path)");
  }
  BEARING_ASSIGN_OR_RETURN(const std::string path, PercentDecoded(rest.substr(slash)));
  return LocalUri(path);
}

}  // namespace

std::string Uri::Root() const { return Concat(scheme, kSeparator, bucket); }

std::string Uri::ToString() const {
  if (is_local()) return Concat("/", key);
  return key.empty() ? Root() : Concat(Root(), "/", key);
}

bool HasScheme(std::string_view text) {
  const size_t end = text.find(kSeparator);
  return end != std::string_view::npos && IsSchemeName(text.substr(0, end));
}

absl::StatusOr<Uri> ParseUri(std::string_view text) {
  if (!HasScheme(text)) return LocalUri(text);
  const size_t end = text.find(kSeparator);
  const std::string_view scheme = text.substr(0, end);
  std::string_view rest = text.substr(end + kSeparator.size());
  if (scheme == "file") return FileUri(rest, text);
  if (std::find(kRemoteSchemes.begin(), kRemoteSchemes.end(), scheme) == kRemoteSchemes.end()) {
    return absl::InvalidArgumentError(
        Concat("address of an unknown kind; want a path, file://, s3://, gs:// or az://: scheme=", scheme));
  }
  const std::string_view bucket = rest.substr(0, rest.find('/'));
  if (bucket.find('@') != std::string_view::npos) {
    return absl::InvalidArgumentError(
        Concat("an address must hold no credentials; they come from the environment: scheme=", scheme));
  }
  if (rest.find_first_of("?#") != std::string_view::npos) {
    return absl::InvalidArgumentError(
        Concat("an address has no query or fragment; endpoint, region and the like come from the environment: bucket=",
               Escaped(bucket)));
  }
  if (bucket.empty()) return Wrong(text, Concat(scheme, ":// is followed by the name of a bucket"));
  if (!IsBucketName(bucket)) return Wrong(text, "a bucket's name has letters, digits, dots, dashes and underscores");
  std::string_view key = rest.substr(bucket.size());
  if (key.starts_with('/')) key.remove_prefix(1);
  if (key.ends_with('/')) key.remove_suffix(1);
  BEARING_RETURN_IF_ERROR(CheckKey(key, text));
  return Uri{.scheme = std::string(scheme), .bucket = std::string(bucket), .key = std::string(key)};
}

std::string ResolveAddress(std::string_view text, const std::string& folder) {
  if (text.empty()) return "";
  if (!HasScheme(text)) return (std::filesystem::path(folder) / text).lexically_normal().string();
  const absl::StatusOr<Uri> uri = ParseUri(text);
  return uri.ok() ? uri->ToString() : std::string(text);
}

std::string JoinKey(std::string_view folder, std::string_view name) {
  if (folder.empty()) return std::string(name);
  return name.empty() ? std::string(folder) : Concat(folder, "/", name);
}

}  // namespace bearing::storage
