// Addresses of files and folders: plain paths, file://, and buckets (s3://bucket/key, gs://bucket/key, az://container/key).
//
// An address holds no settings and no credentials: those come from the environment. So a query, a fragment and "user:password@"
// are refused, and a refused password is not repeated. The functions are thread-safe.
#ifndef BEARING_STORAGE_URI_H_
#define BEARING_STORAGE_URI_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bearing::storage {

struct Uri {
  std::string scheme;  // "file", "s3", "gs" or "az".
  std::string bucket;  // Empty for files.
  std::string key;     // Of an object or a folder, without slash at either end. For files the path without its first slash.

  bool is_local() const { return scheme == "file"; }
  std::string Root() const;      // "s3://bucket"; "file://".
  std::string ToString() const;  // "s3://bucket/key"; for files the path.
};

// Relative paths start at the current folder. InvalidArgument for another scheme, a part of an address that is not supported, a
// key with an empty part, "." or "..", control characters, or more than 1024 bytes.
absl::StatusOr<Uri> ParseUri(std::string_view text);

// Does the text start as an address of a scheme, known or not ("s3://...", "ftp://...")? Others are paths.
bool HasScheme(std::string_view text);

// What a job file or a flag says, made independent of where it was said: addresses as they are (file:// as a path), paths
// against `folder`. Empty and wrong addresses come back unchanged, to be refused where the field's name is known.
std::string ResolveAddress(std::string_view text, const std::string& folder);

// A key below another: "a", "b/c" -> "a/b/c".
std::string JoinKey(std::string_view folder, std::string_view name);

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_URI_H_
