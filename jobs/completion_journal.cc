#include "jobs/completion_journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "jobs/artifacts.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::jobs {
namespace {

using json = nlohmann::json;

constexpr std::chrono::seconds kSyncEvery{1};
constexpr int64_t kReadAtOnce = 1 << 20;

std::string Line(const CompletionRecord& record) {
  // Completions may end in the middle of a character; such bytes become U+FFFD.
  return json{{"condition", record.condition},
              {"side", record.side},
              {"intervention", record.intervention},
              {"row", record.row},
              {"finish", record.finish},
              {"tokens", record.tokens},
              {"metric", record.metric},
              {"response", record.response}}
             .dump(-1, ' ', false, json::error_handler_t::replace) +
         "\n";
}

std::optional<CompletionRecord> Parse(std::string_view line) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  try {
    CompletionRecord record;
    record.condition = object.at("condition").get<int>();
    record.row = object.at("row").get<int64_t>();
    record.side = object.at("side").get<std::string>();
    record.intervention = object.at("intervention").get<std::string>();
    record.response = object.at("response").get<std::string>();
    record.finish = object.at("finish").get<std::string>();
    record.tokens = object.at("tokens").get<int64_t>();
    const json& metric = object.at("metric");  // JSON has no NaN.
    record.metric = metric.is_null() ? std::numeric_limits<double>::quiet_NaN() : metric.get<double>();
    return record;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

// Calls take(offset, line) for each line of the file that has an end.
template <typename Take>
absl::Status ForEachLine(const sharding::FileDescriptor& file, const std::string& path, Take take) {
  BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(file, path));
  std::string pending;
  int64_t begin = 0;  // Of `pending`.
  for (int64_t offset = 0; offset < size;) {
    const int64_t count = std::min(kReadAtOnce, size - offset);
    const size_t old = pending.size();
    pending.resize(old + static_cast<size_t>(count));
    BEARING_RETURN_IF_ERROR(sharding::ReadAt(file, offset, absl::MakeSpan(pending.data() + old, count), path));
    offset += count;
    size_t from = 0;
    for (size_t end = pending.find('\n', old); end != std::string::npos; end = pending.find('\n', from)) {
      take(begin + static_cast<int64_t>(from), std::string_view(pending).substr(from, end - from));
      from = end + 1;
    }
    pending.erase(0, from);
    begin += static_cast<int64_t>(from);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CompletionWriter>> CompletionWriter::Open(const std::string& path) {
  auto writer = std::make_unique<CompletionWriter>();
  writer->path_ = path;
  writer->file_ = sharding::FileDescriptor(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!writer->file_.is_open()) return sharding::ErrnoStatus("cannot open", path);
  BEARING_ASSIGN_OR_RETURN(writer->size_, sharding::FileSize(writer->file_, path));
  if (writer->size_ > 0) {
    char last = 0;
    BEARING_RETURN_IF_ERROR(sharding::ReadAt(writer->file_, writer->size_ - 1, absl::MakeSpan(&last, 1), path));
    if (last != '\n') {
      BEARING_RETURN_IF_ERROR(sharding::WriteAt(writer->file_, writer->size_, "\n", path));
      ++writer->size_;
    }
  }
  BEARING_RETURN_IF_ERROR(sharding::SyncFolder(std::filesystem::path(path).parent_path().string()));
  return writer;
}

void CompletionWriter::Add(const CompletionRecord& record) {
  if (!status_.ok()) return;
  const std::string line = Line(record);
  status_ = sharding::WriteAt(file_, size_, absl::MakeConstSpan(line.data(), line.size()), path_);
  if (status_.ok()) size_ += static_cast<int64_t>(line.size());
  if (std::chrono::steady_clock::now() - synced_ >= kSyncEvery) Sync();
}

void CompletionWriter::Sync() {
  status_.Update(sharding::SyncFile(file_, path_));
  synced_ = std::chrono::steady_clock::now();
}

absl::StatusOr<CompletionIndex> CompletionIndex::Read(const std::vector<std::string>& files, const std::vector<int64_t>& rows) {
  CompletionIndex index;
  index.files_ = files;
  for (const int64_t n : rows) index.places_.emplace_back(n);
  for (size_t f = 0; f < files.size(); ++f) {
    index.open_.emplace_back();
    if (!std::filesystem::exists(files[f])) continue;
    BEARING_ASSIGN_OR_RETURN(index.open_[f], sharding::OpenForReading(files[f]));
    BEARING_RETURN_IF_ERROR(ForEachLine(index.open_[f], files[f], [&](int64_t offset, std::string_view line) {
      if (line.size() > std::numeric_limits<uint32_t>::max()) return;
      const std::optional<CompletionRecord> record = Parse(line);
      if (!record.has_value() || record->condition < 0 || record->condition >= static_cast<int>(rows.size())) return;
      if (record->row < 0 || record->row >= rows[record->condition]) return;
      Place& place = index.places_[record->condition][record->row];
      if (place.file < 0) ++index.found_;
      place = {static_cast<int32_t>(f), static_cast<uint32_t>(line.size()), offset};
    }));
  }
  return index;
}

absl::StatusOr<CompletionRecord> CompletionIndex::Get(int condition, int64_t row) const {
  const Place& place = places_[condition][row];
  if (place.file < 0) {
    return absl::DataLossError(Concat("a completion is missing: condition=", condition, " row=", row));
  }
  std::string line(place.length, '\0');
  BEARING_RETURN_IF_ERROR(
      sharding::ReadAt(open_[place.file], place.offset, absl::MakeSpan(line.data(), line.size()), files_[place.file]));
  std::optional<CompletionRecord> record = Parse(line);
  if (!record.has_value() || record->condition != condition || record->row != row) {
    return absl::DataLossError(Concat("the journal has changed: file=", files_[place.file]));
  }
  return *std::move(record);
}

}  // namespace bearing::jobs
