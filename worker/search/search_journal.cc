#include "worker/search/search_journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "jobs/artifacts.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "bearing-search-journal/1";

absl::Status CheckKey(const std::string& path, const json& header, const json& key) {
  if (header.value("format", "") != kFormat || !header.contains("key") || !header["key"].is_object()) {
    return absl::DataLossError(absl::StrCat("not the journal of a search: file=", path, " line=1"));
  }
  for (const auto& [name, value] : key.items()) {
    const json recorded = header["key"].value(name, json());
    if (recorded != value) {
      return absl::AlreadyExistsError(
          absl::StrCat("the folder holds another search; choose another --out, or remove it: file=", path, " differs in ", name,
                       ": ", recorded.dump(), " there, ", value.dump(), " here"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SearchJournal> SearchJournal::Open(const std::string& path, const json& key) {
  SearchJournal journal;
  journal.path_ = path;
  std::error_code error;
  std::string text;
  if (std::filesystem::exists(path, error)) {
    BEARING_ASSIGN_OR_RETURN(text, jobs::ReadFile(path));
  }
  const size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  if (whole == 0) {
    BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(path, json{{"format", kFormat}, {"key", key}}.dump() + "\n"));
    return journal;
  }
  const bool torn = whole < text.size();
  int64_t number = 0;
  text.resize(whole - 1);
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  for (const std::string& line : lines) {
    ++number;
    const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
      return absl::DataLossError(absl::StrCat("not a line of a journal: file=", path, " line=", number));
    }
    BEARING_RETURN_IF_ERROR(number == 1 ? CheckKey(path, object, key) : journal.Take(object, number));
  }
  if (torn) std::filesystem::resize_file(path, whole, error);
  if (error) return absl::InternalError(absl::StrCat("cannot cut off a torn line: file=", path, ": ", error.message()));
  return journal;
}

absl::Status SearchJournal::Take(const json& line, int64_t number) {
  const bool is_trial = line.contains("trial");
  const json& which = is_trial ? line["trial"] : line.value("completions_of", json());
  if (!which.is_number_integer()) {
    return absl::DataLossError(absl::StrCat("a line without its trial: file=", path_, " line=", number));
  }
  (is_trial ? trials_ : completions_)[which.get<int64_t>()] = line;
  return absl::OkStatus();
}

absl::Status SearchJournal::Append(absl::Span<const json> lines) {
  std::string text;
  for (const json& line : lines) {
    absl::StrAppend(&text, line.dump(-1, ' ', false, json::error_handler_t::replace), "\n");
    BEARING_RETURN_IF_ERROR(Take(line, 0));
  }
  const int file = open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file < 0) return absl::InternalError(absl::StrCat("cannot open: file=", path_, ": ", std::strerror(errno)));
  absl::Status status;
  size_t done = 0;
  while (status.ok() && done < text.size()) {
    const ssize_t written = write(file, text.data() + done, text.size() - done);
    if (written > 0) {
      done += static_cast<size_t>(written);
    } else if (written == 0 || errno != EINTR) {
      status = absl::InternalError(absl::StrCat("cannot write: file=", path_, ": ", std::strerror(errno)));
    }
  }
  if (status.ok() && fsync(file) != 0) {
    status = absl::InternalError(absl::StrCat("cannot sync: file=", path_, ": ", std::strerror(errno)));
  }
  close(file);
  return status;
}

}  // namespace bearing::worker
