#include "worker/edit/edit_checkpoint.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "nlohmann/json.hpp"
#include "sharding/checkpoint_writer.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "worker/edit/edit_identity.h"
#include "worker/edit/part_journal.h"
#include "worker/edit/parts.h"
#include "worker/edit/peak_memory.h"
#include "worker/edit/write_parts.h"

namespace bearing::edit {
namespace {

constexpr int64_t kMaxNoteBytes = int64_t{1} << 30;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
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

// The error of re-quantized tensors is known only to who makes them.
bool CanKeep(const EditPlan& plan, const Part& part) {
  return std::none_of(part.pieces.begin(), part.pieces.end(), [&plan](const Piece& piece) {
    if (piece.tensor < 0) return false;
    const auto edit = plan.edits.find(static_cast<size_t>(piece.tensor));
    return edit != plan.edits.end() && edit->second.kind != TensorEdit::Kind::kValues &&
           edit->second.kind != TensorEdit::Kind::kConstant;
  });
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
  absl::Status Prepare();
  absl::Status Write(const std::atomic<bool>& stop);
  absl::Status Verify(const std::atomic<bool>& stop);
  absl::Status Gather();
  void CountKept(const std::set<size_t>& kept);
  bool IsStored(const Part& part, uint64_t checksum, absl::Span<char> memory) const;
  absl::Status Report(const char* what, int64_t done, int64_t total, const std::atomic<bool>& stop) const;

  const sharding::WeightFiles& source_;
  const EditPlan& plan_;
  const RankGroup& group_;
  const EditOptions& options_;
  TensorEditor editor_;
  std::unique_ptr<sharding::CheckpointWriter> writer_;
  std::vector<Part> parts_;
  EditOutcome outcome_;
};

absl::Status Run::Prepare() {
  BEARING_ASSIGN_OR_RETURN(const std::string identity, EditIdentity(source_, plan_, options_.version));
  return writer_->Prepare(UneditedFiles(plan_), identity).status();
}

// Are the part's bytes in the staged file, as an earlier run left them?
bool Run::IsStored(const Part& part, uint64_t checksum, absl::Span<char> memory) const {
  const std::string path = Concat(staged(), "/", plan_.copy.files[part.file].name);
  const absl::StatusOr<sharding::FileDescriptor> file = sharding::OpenForReading(path);
  if (!file.ok() || !sharding::ReadAt(*file, part.offset, memory, path).ok()) return false;
  Checksum stored;
  stored.Update(memory);
  return stored.Finish() == checksum;
}

absl::Status Run::Report(const char* what, int64_t done, int64_t total, const std::atomic<bool>& stop) const {
  if (stop) return absl::CancelledError("another rank failed");
  return options_.progress ? options_.progress(what, done, total) : absl::OkStatus();
}

absl::Status Run::Write(const std::atomic<bool>& stop) {
  BEARING_ASSIGN_OR_RETURN(const std::set<size_t> cloned, writer_->ClonedFiles());
  for (const size_t file : cloned) outcome_.bytes_cloned += plan_.copy.files[file].size;
  parts_ = CutParts(plan_, cloned);
  const PartRange mine = PartsOfRank(parts_, group_.rank, group_.ranks);
  int64_t total = 0;
  for (size_t i = mine.begin; i < mine.end; ++i) total += parts_[i].num_bytes;
  for (const Part& part : parts_) outcome_.bytes_written += part.num_bytes;

  BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> journals, writer_->KeptNotes());
  BEARING_ASSIGN_OR_RETURN(const auto written_before, PartJournal::Read(journals));
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<PartJournal> journal,
                           PartJournal::Open(writer_->KeptNotePath(Concat("written-", group_.rank))));
  std::mutex mutex;
  std::vector<size_t> kept;
  WriteOptions write{.threads = options_.threads, .memory_bytes = options_.memory_bytes, .keep = {}, .progress = {}};
  write.progress = [&](int64_t done) { return Report("write", done, total, stop); };
  write.keep = [&](size_t part, absl::Span<char> memory) -> std::optional<uint64_t> {
    const auto found = written_before.find(part);
    if (found == written_before.end() || !CanKeep(plan_, parts_[part])) return std::nullopt;
    if (!IsStored(parts_[part], found->second, memory)) return std::nullopt;
    const std::lock_guard<std::mutex> lock(mutex);
    kept.push_back(part);
    return found->second;
  };
  const PartSink sink = [&](size_t part, absl::Span<const char> bytes, uint64_t checksum) -> absl::Status {
    BEARING_RETURN_IF_ERROR(writer_->WritePart(parts_[part].file, parts_[part].offset, bytes));
    return journal->Add(part, checksum);
  };
  BEARING_ASSIGN_OR_RETURN(const std::vector<uint64_t> checksums,
                           WriteParts(source_, plan_, parts_, mine, editor_, sink, write));
  BEARING_RETURN_IF_ERROR(writer_->Sync());
  nlohmann::json errors = nlohmann::json::array();
  for (const auto& [weight, error] : editor_.quantization_errors()) errors.push_back({weight, error.error, error.all});
  return WriteNote(staged(), "written", group_.rank,
                   {{"begin", mine.begin},
                    {"checksums", checksums},
                    {"kept", kept},
                    {"errors", errors},
                    {"peak_memory", PeakMemoryBytes()}});
}

absl::Status Run::Verify(const std::atomic<bool>& stop) {
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
    BEARING_RETURN_IF_ERROR(Report("verify", done, total, stop));
  }
  return WriteNote(staged(), "verified", group_.rank, note);
}

// Rank 0 reads what the others found, and takes the notes away.
absl::Status Run::Gather() {
  std::map<std::string, FileCheck> checks;
  std::set<size_t> kept;
  for (int rank = 0; rank < group_.ranks; ++rank) {
    BEARING_ASSIGN_OR_RETURN(const nlohmann::json written, ReadNote(staged(), "written", rank));
    outcome_.peak_memory_bytes = std::max(outcome_.peak_memory_bytes, written.at("peak_memory").get<int64_t>());
    for (const nlohmann::json& part : written.at("kept")) kept.insert(part.get<size_t>());
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
  CountKept(kept);
  if (!options_.verify) return absl::OkStatus();
  for (const sharding::CopyPlan::File& file : plan_.copy.files) {
    const auto found = checks.find(file.name);
    if (found == checks.end()) return absl::InternalError(Concat("file was not verified: file=", file.name));
    outcome_.checked.push_back(std::move(found->second));
  }
  return absl::OkStatus();
}

void Run::CountKept(const std::set<size_t>& kept) {
  std::map<size_t, bool> whole;
  for (size_t part = 0; part < parts_.size(); ++part) {
    const bool is_kept = kept.contains(part);
    if (is_kept) outcome_.bytes_kept += parts_[part].num_bytes;
    const auto [file, first] = whole.try_emplace(parts_[part].file, is_kept);
    file->second = file->second && is_kept;
  }
  outcome_.files_kept = std::count_if(whole.begin(), whole.end(), [](const auto& file) { return file.second; });
}

absl::StatusOr<EditOutcome> Run::All(const std::string& out_dir, const Describe& describe) {
  auto writer = sharding::CheckpointWriter::Create(
      &source_, &plan_.copy, out_dir, options_.overwrite ? sharding::Existing::kReplace : sharding::Existing::kRefuse);
  BEARING_RETURN_IF_ERROR(group_.agree(writer.status()));
  writer_ = *std::move(writer);
  const auto start = std::chrono::steady_clock::now();
  BEARING_RETURN_IF_ERROR(OnRank0([&] { return Prepare(); }));
  BEARING_RETURN_IF_ERROR(WorkTogether(group_, [&](const std::atomic<bool>& stop) { return Write(stop); }));
  outcome_.write_seconds = SecondsSince(start);
  if (options_.verify) {
    const auto verify_start = std::chrono::steady_clock::now();
    BEARING_RETURN_IF_ERROR(WorkTogether(group_, [&](const std::atomic<bool>& stop) { return Verify(stop); }));
    outcome_.verify_seconds = SecondsSince(verify_start);
  }
  if (options_.check) {
    BEARING_ASSIGN_OR_RETURN(outcome_.logits, options_.check(staged()));
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
