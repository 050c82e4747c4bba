#include "worker/edit/edit_checkpoint.h"

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "nlohmann/json.hpp"
#include "sharding/checkpoint_writer.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "worker/edit/parts.h"
#include "worker/edit/write_parts.h"

namespace bearing::edit {
namespace {

constexpr int64_t kMaxNoteBytes = int64_t{1} << 30;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Resident memory that this process has had at the most; 0 where that is not known.
int64_t PeakMemoryBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    int64_t kilobytes = 0;
    if (std::sscanf(line.c_str(), "VmHWM: %" SCNd64 " kB", &kilobytes) == 1) return kilobytes << 10;
  }
  return 0;
}

// What a rank tells the others, as a file beside the staged weights: they share that folder anyway.
std::string NotePath(const std::string& staged, const char* what, int rank) { return Concat(staged, "/.", what, "-", rank); }

absl::Status WriteNote(const std::string& staged, const char* what, int rank, const nlohmann::json& note) {
  return sharding::WriteNewFile(NotePath(staged, what, rank), note.dump());
}

absl::StatusOr<nlohmann::json> ReadNote(const std::string& staged, const char* what, int rank) {
  const std::string path = NotePath(staged, what, rank);
  BEARING_ASSIGN_OR_RETURN(const std::string text, sharding::ReadWholeFile(path, kMaxNoteBytes));
  nlohmann::json note = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (note.is_discarded()) return absl::DataLossError(Concat("staged note is damaged: file=", path));
  return note;
}

nlohmann::json ToJson(const FileCheck& check) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const TensorCheck& tensor : check.tensors) tensors.push_back({tensor.tensor, tensor.residue, tensor.finite});
  return {{"name", check.name}, {"size", check.size}, {"sha256", check.sha256}, {"tensors", tensors}};
}

FileCheck FromJson(const nlohmann::json& note) {
  FileCheck check{.name = note.at("name"), .size = note.at("size"), .sha256 = note.at("sha256"), .tensors = {}};
  for (const nlohmann::json& tensor : note.at("tensors")) {
    check.tensors.push_back({.tensor = tensor.at(0), .residue = tensor.at(1), .finite = tensor.at(2)});
  }
  return check;
}

// The files of a rank: largest first, each to the rank with least so far.
std::vector<size_t> FilesOfRank(const EditPlan& plan, int rank, int ranks) {
  std::vector<size_t> order(plan.copy.files.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return plan.copy.files[a].size > plan.copy.files[b].size; });
  std::vector<int64_t> load(static_cast<size_t>(ranks));
  std::vector<size_t> mine;
  for (const size_t file : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += plan.copy.files[file].size;
    if (least - load.begin() == rank) mine.push_back(file);
  }
  return mine;
}

class Run {
 public:
  Run(const sharding::WeightFiles& source, const EditPlan& plan, const RankGroup& group, const EditOptions& options)
      : source_(source), plan_(plan), group_(group), options_(options), editor_(&source) {}

  absl::StatusOr<EditOutcome> All(const std::string& out_dir, const Describe& describe);

 private:
  template <typename Work>
  absl::Status OnRank0(const Work& work) {
    return group_.agree(group_.rank == 0 ? work() : absl::OkStatus());
  }
  const std::string& staged() const { return writer_->staged_folder(); }
  absl::Status Write();
  absl::Status Verify();
  absl::Status Gather();

  const sharding::WeightFiles& source_;
  const EditPlan& plan_;
  const RankGroup& group_;
  const EditOptions& options_;
  TensorEditor editor_;
  std::unique_ptr<sharding::CheckpointWriter> writer_;
  std::vector<Part> parts_;
  EditOutcome outcome_;
};

absl::Status Run::Write() {
  BEARING_ASSIGN_OR_RETURN(const std::set<size_t> cloned, writer_->ClonedFiles());
  for (const size_t file : cloned) outcome_.bytes_cloned += plan_.copy.files[file].size;
  parts_ = CutParts(plan_, cloned);
  const PartRange mine = PartsOfRank(parts_, group_.rank, group_.ranks);
  int64_t total = 0;
  for (size_t i = mine.begin; i < mine.end; ++i) total += parts_[i].num_bytes;
  for (const Part& part : parts_) outcome_.bytes_written += part.num_bytes;
  WriteOptions write{.threads = options_.threads, .memory_bytes = options_.memory_bytes, .progress = {}};
  if (options_.progress) write.progress = [&](int64_t done) { return options_.progress("write", done, total); };
  const PartSink sink = [&](const Part& part, absl::Span<const char> bytes) {
    return writer_->WritePart(part.file, part.offset, bytes);
  };
  BEARING_ASSIGN_OR_RETURN(const std::vector<uint64_t> checksums,
                           WriteParts(source_, plan_, parts_, mine, editor_, sink, write));
  BEARING_RETURN_IF_ERROR(writer_->Sync());
  nlohmann::json errors = nlohmann::json::array();
  for (const auto& [weight, error] : editor_.quantization_errors()) errors.push_back({weight, error.error, error.all});
  return WriteNote(staged(), "written", group_.rank,
                   {{"begin", mine.begin}, {"checksums", checksums}, {"errors", errors}, {"peak_memory", PeakMemoryBytes()}});
}

absl::Status Run::Verify() {
  std::map<size_t, uint64_t> checksums;
  for (int rank = 0; rank < group_.ranks; ++rank) {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json note, ReadNote(staged(), "written", rank));
    size_t part = note.at("begin");
    for (const nlohmann::json& checksum : note.at("checksums")) checksums.emplace(part++, checksum.get<uint64_t>());
  }
  const std::vector<size_t> files = FilesOfRank(plan_, group_.rank, group_.ranks);
  int64_t total = 0;
  int64_t done = 0;
  for (const size_t file : files) total += plan_.copy.files[file].size;
  nlohmann::json note = nlohmann::json::array();
  for (const size_t file : files) {
    BEARING_ASSIGN_OR_RETURN(const FileCheck check, VerifyFile(staged(), plan_, file, parts_, checksums));
    note.push_back(ToJson(check));
    done += check.size;
    if (options_.progress) BEARING_RETURN_IF_ERROR(options_.progress("verify", done, total));
  }
  return WriteNote(staged(), "verified", group_.rank, note);
}

// Rank 0 reads what the others found, and takes the notes away.
absl::Status Run::Gather() {
  std::map<std::string, FileCheck> checks;
  for (int rank = 0; rank < group_.ranks; ++rank) {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json written, ReadNote(staged(), "written", rank));
    outcome_.peak_memory_bytes = std::max(outcome_.peak_memory_bytes, written.at("peak_memory").get<int64_t>());
    for (const nlohmann::json& error : written.at("errors")) {
      QuantizationError& sum = outcome_.quantization_errors[error.at(0).get<std::string>()];
      sum.error += error.at(1).get<double>();
      sum.all += error.at(2).get<double>();
    }
    std::vector<const char*> notes = {"written"};
    if (options_.verify) {
      BEARING_ASSIGN_OR_RETURN(const nlohmann::json verified, ReadNote(staged(), "verified", rank));
      for (const nlohmann::json& note : verified) {
        FileCheck check = FromJson(note);
        checks.emplace(check.name, std::move(check));
      }
      notes.push_back("verified");
    }
    for (const char* const what : notes) {
      std::error_code error;
      std::filesystem::remove(NotePath(staged(), what, rank), error);
      if (error) return absl::UnavailableError(Concat("cannot remove: file=", NotePath(staged(), what, rank)));
    }
  }
  if (!options_.verify) return absl::OkStatus();
  for (const sharding::CopyPlan::File& file : plan_.copy.files) {
    const auto found = checks.find(file.name);
    if (found == checks.end()) return absl::InternalError(Concat("file was not verified: file=", file.name));
    outcome_.checked.push_back(std::move(found->second));
  }
  return absl::OkStatus();
}

absl::StatusOr<EditOutcome> Run::All(const std::string& out_dir, const Describe& describe) {
  auto writer = sharding::CheckpointWriter::Create(&source_, &plan_.copy, out_dir);
  BEARING_RETURN_IF_ERROR(group_.agree(writer.status()));
  writer_ = *std::move(writer);
  const auto start = std::chrono::steady_clock::now();
  BEARING_RETURN_IF_ERROR(OnRank0([&] { return writer_->Prepare(UneditedFiles(plan_)); }));
  BEARING_RETURN_IF_ERROR(group_.agree(Write()));
  outcome_.write_seconds = SecondsSince(start);
  if (options_.verify) {
    const auto verify_start = std::chrono::steady_clock::now();
    BEARING_RETURN_IF_ERROR(group_.agree(Verify()));
    outcome_.verify_seconds = SecondsSince(verify_start);
  }
  BEARING_RETURN_IF_ERROR(OnRank0([&]() -> absl::Status {
    BEARING_RETURN_IF_ERROR(Gather());
    outcome_.files = writer_->files();
    if (describe) BEARING_RETURN_IF_ERROR(describe(outcome_, staged()));
    return writer_->Commit();
  }));
  return std::move(outcome_);
}

}  // namespace

absl::StatusOr<EditOutcome> EditCheckpoint(const sharding::WeightFiles& source, const EditPlan& plan,
                                           const std::string& out_dir, const RankGroup& group, const EditOptions& options,
                                           const Describe& describe) {
  return Run(source, plan, group, options).All(out_dir, describe);
}

}  // namespace bearing::edit
