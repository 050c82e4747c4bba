#include "coordinator/path_policy.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "rpc/status_details.h"
#include "sharding/status_macros.h"
#include "storage/uri.h"

namespace bearing::coordinator {
namespace {

namespace fs = std::filesystem;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Entries of a folder that are looked at for links; a folder with more is refused.
constexpr int kMostEntries = 100'000;
// As the kernel follows.
constexpr int kMostLinks = 40;

// The path with every link followed, also those that lead to what is not there (yet), and every ".." taken.
absl::StatusOr<fs::path> Resolve(const fs::path& path) {
  std::vector<fs::path> left;  // The next part last.
  const auto push = [&left](const fs::path& more) {
    const std::vector<fs::path> parts(more.begin(), more.end());
    left.insert(left.end(), parts.rbegin(), parts.rend());
  };
  push(path);
  fs::path resolved = "/";
  int links = 0;
  while (!left.empty()) {
    const fs::path part = left.back();
    left.pop_back();
    if (part.empty() || part == "." || part == "/") continue;
    if (part == "..") {
      resolved = resolved.parent_path();
      continue;
    }
    std::error_code error;
    const fs::path next = resolved / part;
    const fs::file_status status = fs::symlink_status(next, error);
    if (error && status.type() != fs::file_type::not_found) {
      return absl::InvalidArgumentError(absl::StrCat("cannot be followed: ", error.message()));
    }
    if (status.type() != fs::file_type::symlink) {
      resolved = next;
      continue;
    }
    const fs::path target = fs::read_symlink(next, error);
    if (error || ++links > kMostLinks) return absl::InvalidArgumentError("cannot be followed: its links lead nowhere");
    if (target.is_absolute()) resolved = "/";
    push(target);
  }
  return resolved;
}

// The canonical form of a path or an address, without a slash at its end; paths keep "/" alone as "".
absl::StatusOr<std::string> Canonical(const std::string& text) {
  std::string path = text;
  if (storage::HasScheme(text)) {
    BEARING_ASSIGN_OR_RETURN(const storage::Uri uri, storage::ParseUri(text));
    if (!uri.is_local()) return uri.ToString();
    path = uri.ToString();
  }
  if (path.empty() || path.front() != '/') return absl::InvalidArgumentError("must be an absolute path or an address");
  BEARING_ASSIGN_OR_RETURN(const fs::path resolved, Resolve(path));
  std::string canonical = resolved.string();
  while (!canonical.empty() && canonical.back() == '/') canonical.pop_back();
  return canonical;
}

bool IsInside(const std::string& canonical, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& prefix) {
    // "" is the root of the file system, not of buckets.
    if (prefix.empty()) return canonical.empty() || canonical.front() == '/';
    return canonical == prefix || absl::StartsWith(canonical, prefix + "/");
  });
}

absl::Status Outside(const std::string& field, const char* what, const std::string& path) {
  return rpc::WithReason(
      absl::PermissionDeniedError(absl::StrCat(field, ": is outside of what jobs may ", what, " here: path=", path)),
      "PATH_NOT_ALLOWED");
}

// Every link below the folder must lead to a place inside.
absl::Status CheckLinks(const std::string& field, const std::string& folder, const std::vector<std::string>& prefixes) {
  std::error_code error;
  int entries = 0;
  for (auto at = fs::recursive_directory_iterator(folder, fs::directory_options::skip_permission_denied, error);
       !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    if (++entries > kMostEntries) return absl::InvalidArgumentError(absl::StrCat(field, ": the folder has too many entries"));
    if (!at->is_symlink(error)) continue;
    const absl::StatusOr<std::string> target = Canonical(at->path().string());
    if (!target.ok() || !IsInside(*target, prefixes)) return Outside(field, "reach", at->path().string());
  }
  return absl::OkStatus();
}

absl::Status CheckPath(const std::string& field, const std::string& text, const char* what,
                       const std::vector<std::string>& prefixes) {
  const absl::StatusOr<std::string> canonical = Canonical(text);
  if (!canonical.ok()) return absl::InvalidArgumentError(absl::StrCat(field, ": ", canonical.status().message()));
  if (!IsInside(*canonical, prefixes)) return Outside(field, what, text);
  if (canonical->empty() || canonical->front() != '/') return absl::OkStatus();
  return CheckLinks(field, *canonical, prefixes);
}

bool LooksLikePath(const std::string& text) { return absl::StartsWith(text, "/") || storage::HasScheme(text); }

// Calls `visit` with every text of the message and the name of its field as a job file says it.
absl::Status ForEachText(const Message& message, const std::string& prefix,
                         const std::function<absl::Status(const std::string&, const std::string&)>& visit) {
  const auto* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    // Labels are words for people.
    if (field->is_map()) continue;
    const std::string name = absl::StrCat(prefix, field->json_name() == "concept" ? "concept" : field->name());
    const int count = field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const std::string at = field->is_repeated() ? absl::StrCat(name, "[", i, "]") : name;
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
        BEARING_RETURN_IF_ERROR(visit(at, field->is_repeated() ? reflection->GetRepeatedString(message, field, i)
                                                               : reflection->GetString(message, field)));
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        const Message& inner =
            field->is_repeated() ? reflection->GetRepeatedMessage(message, field, i) : reflection->GetMessage(message, field);
        BEARING_RETURN_IF_ERROR(ForEachText(inner, at + ".", visit));
      }
    }
  }
  return absl::OkStatus();
}

// Words that a model says may start with a slash.
bool IsProse(const std::string& field) {
  if (absl::StartsWith(field, "judges[")) {
    return !absl::EndsWith(field, ".path") && !absl::EndsWith(field, ".prompt_file") &&
           !absl::EndsWith(field, ".chat_template");
  }
  return absl::StartsWith(field, "concept.markers") || absl::StartsWith(field, "concept.tokens") ||
         absl::StartsWith(field, "evaluate.stop") || field == "prompts.system";
}

}  // namespace

absl::StatusOr<PathPolicy> PathPolicy::Create(const std::vector<std::string>& read, const std::vector<std::string>& write) {
  PathPolicy policy;
  policy.everything_ = read.empty() && write.empty();
  for (const auto& [from, to, flag] :
       {std::tuple(&read, &policy.read_, "--allow-read"), std::tuple(&write, &policy.write_, "--allow-write")}) {
    for (const std::string& prefix : *from) {
      absl::StatusOr<std::string> canonical = Canonical(prefix);
      if (!canonical.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(flag, ": ", canonical.status().message(), ": prefix=", prefix));
      }
      to->push_back(*std::move(canonical));
    }
  }
  policy.read_.insert(policy.read_.end(), policy.write_.begin(), policy.write_.end());
  return policy;
}

absl::Status PathPolicy::Check(const bearing::v1::JobSpec& spec) const {
  if (everything_) return absl::OkStatus();
  return ForEachText(spec, "", [this](const std::string& field, const std::string& text) -> absl::Status {
    if (field == "output") return CheckPath(field, text, "write", write_);
    return LooksLikePath(text) && !IsProse(field) ? CheckPath(field, text, "read", read_) : absl::OkStatus();
  });
}

}  // namespace bearing::coordinator
