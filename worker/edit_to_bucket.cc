#include "worker/edit_to_bucket.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sharding/concat.h"
#include "sharding/sha256.h"
#include "sharding/side_files.h"
#include "sharding/status_macros.h"
#include "worker/edit/edit_identity.h"
#include "worker/edit/edit_record.h"
#include "worker/edit/file_meter.h"
#include "worker/edit/parts.h"
#include "worker/edit/peak_memory.h"
#include "worker/edit/stream_file.h"
#include "worker/publish_together.h"

namespace bearing::worker {
namespace {

using edit::CheckpointTask;
using edit::EditOutcome;
using nlohmann::json;
using storage::PublishedFile;

// An upload's requests under way take about this much beside the parts in hand.
constexpr int64_t kUploadBytes = 80 << 20;

std::string NoteName(int rank) { return Concat("rank-", rank); }

class BucketRun {
 public:
  BucketRun(const edit::RankGroup& group, const sharding::WeightFiles& source, const BucketTarget& target,
            const CheckpointTask& task, storage::Publisher publisher)
      : group_(group), source_(source), target_(target), task_(task), plan_(task.plan), publisher_(std::move(publisher)) {}

  absl::StatusOr<EditOutcome> All();

 private:
  struct Stop {
    const std::atomic<bool>& flag;
    int64_t before = 0;  // Bytes of the files that are done.
    int64_t total = 0;
  };
  absl::Status StageWeights(const std::atomic<bool>& stop);
  absl::Status StageFile(size_t file, const Stop& stop);
  absl::Status Stream(size_t file, const Stop& stop);
  absl::StatusOr<std::string> KeyInStore(size_t file) const;
  absl::Status CopyInStore(size_t file, const std::string& from);
  absl::Status StageSmallFiles();
  absl::Status Finish();
  absl::Status Gather();
  absl::Status Report(int64_t done, const Stop& stop) const;

  const edit::RankGroup& group_;
  const sharding::WeightFiles& source_;
  const BucketTarget& target_;
  const CheckpointTask& task_;
  const edit::EditPlan& plan_;
  storage::Publisher publisher_;
  std::vector<edit::Part> parts_;
  std::vector<size_t> kept_;    // Files that an earlier run had staged.
  std::vector<size_t> copied_;  // Inside the store.
  std::vector<PublishedFile> files_;
  EditOutcome outcome_;
};

absl::Status BucketRun::Report(int64_t done, const Stop& stop) const {
  if (stop.flag) return absl::CancelledError("another rank failed");
  return task_.options.progress ? task_.options.progress("upload", stop.before + done, stop.total) : absl::OkStatus();
}

// The key of the shard that the file is a copy of, where the store can copy it; else empty.
absl::StatusOr<std::string> BucketRun::KeyInStore(size_t file) const {
  const std::optional<size_t>& shard = plan_.copy.files[file].same_as;
  if (!target_.model || !shard || target_.model->uri.Root() != target_.destination.uri.Root()) return "";
  std::string key = target_.model->KeyOf(source_.shards()[*shard].file_name);
  // Another object than the one whose header was read would be another model.
  BEARING_ASSIGN_OR_RETURN(const storage::ObjectInfo object, target_.destination.store->Stat(key));
  const sharding::RandomAccessFile& opened = source_.file(*shard);
  if (object.size != opened.size() || object.etag != opened.version()) {
    return absl::FailedPreconditionError(Concat("file changed since it was opened: file=", opened.name()));
  }
  return key;
}

absl::Status BucketRun::CopyInStore(size_t file, const std::string& from) {
  const json note = {{"tensors", json::array()}, {"errors", json::array()}};
  BEARING_RETURN_IF_ERROR(publisher_.StageCopy(plan_.copy.files[file].name, from, "", note.dump()).status());
  BEARING_RETURN_IF_ERROR(KeyInStore(file).status());
  copied_.push_back(file);
  return absl::OkStatus();
}

absl::Status BucketRun::Stream(size_t file, const Stop& stop) {
  const sharding::CopyPlan::File& planned = plan_.copy.files[file];
  BEARING_ASSIGN_OR_RETURN(const std::unique_ptr<storage::StagedFile> staged, publisher_.Stage(planned.name, planned.size));
  // One editor a file: what re-quantization cost belongs to the file's record.
  edit::TensorEditor editor(&source_);
  edit::TensorEditor scales_editor(&source_);
  edit::FileMeter meter(planned.name, plan_, file,
                        [&](size_t tensor) { return edit::MakeTensor(source_, plan_, tensor, scales_editor); });
  edit::StreamOptions options;
  options.threads = task_.options.threads;
  options.memory_bytes = std::max(task_.options.memory_bytes - kUploadBytes, sharding::kEditPieceBytes);
  options.meter = task_.options.verify ? &meter : nullptr;
  options.progress = [&](int64_t done) { return Report(done, stop); };
  BEARING_RETURN_IF_ERROR(edit::StreamFile(
      source_, plan_, parts_, edit::PartsOfFile(parts_, file), editor,
      [&](absl::Span<const char> bytes) { return staged->Write(bytes); }, options));
  edit::FileCheck check{.name = planned.name, .size = planned.size, .sha256 = {}, .tensors = {}};
  if (task_.options.verify) {
    BEARING_ASSIGN_OR_RETURN(check.tensors, meter.Finish());
  }
  json note = {{"tensors", edit::ToJson(check)["tensors"]}, {"errors", json::array()}};
  for (const auto& [weight, error] : editor.quantization_errors()) note["errors"].push_back({weight, error.error, error.all});
  return staged->Finish(note.dump()).status();
}

absl::Status BucketRun::StageFile(size_t file, const Stop& stop) {
  BEARING_ASSIGN_OR_RETURN(const std::optional<PublishedFile> staged, publisher_.FindStaged(plan_.copy.files[file].name));
  if (staged.has_value() && staged->size == plan_.copy.files[file].size) {
    kept_.push_back(file);
    return absl::OkStatus();
  }
  if (edit::UneditedFiles(plan_).contains(file)) {
    BEARING_ASSIGN_OR_RETURN(const std::string key, KeyInStore(file));
    if (!key.empty()) return CopyInStore(file, key);
  }
  return Stream(file, stop);
}

absl::Status BucketRun::StageWeights(const std::atomic<bool>& stop) {
  parts_ = edit::CutParts(plan_, {});
  const std::vector<size_t> files = edit::FilesOfRank(plan_, group_.rank, group_.ranks);
  Stop at{.flag = stop, .before = 0, .total = 0};
  for (const size_t file : files) at.total += plan_.copy.files[file].size;
  for (const size_t file : files) {
    if (const absl::Status staged = StageFile(file, at); !staged.ok()) return publisher_.Explained(staged);
    at.before += plan_.copy.files[file].size;
    BEARING_RETURN_IF_ERROR(Report(0, at));
  }
  const json note = {{"kept", kept_}, {"copied", copied_}, {"peak_memory", edit::PeakMemoryBytes()}};
  return publisher_.WriteNote(NoteName(group_.rank), note.dump());
}

// Config, index, tokenizer and the like. Rank 0.
absl::Status BucketRun::StageSmallFiles() {
  BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> found, sharding::FindSideFiles(source_.model_dir()));
  std::set<std::string> names(found.begin(), found.end());
  for (const auto& [name, text] : plan_.copy.side_texts) names.insert(name);
  for (const std::string& name : names) {
    const auto text = plan_.copy.side_texts.find(name);
    absl::StatusOr<PublishedFile> staged = text != plan_.copy.side_texts.end()
                                               ? publisher_.StageText(name, text->second)
                                               : publisher_.StageLocalFile(name, Concat(source_.model_dir(), "/", name));
    BEARING_RETURN_IF_ERROR(staged.status());
    files_.push_back(*std::move(staged));
  }
  return absl::OkStatus();
}

// What all ranks found out, from the records of their files.
absl::Status BucketRun::Gather() {
  std::set<size_t> kept;
  for (int rank = 0; rank < group_.ranks; ++rank) {
    BEARING_ASSIGN_OR_RETURN(const std::string text, publisher_.ReadNote(NoteName(rank)));
    const json note = json::parse(text);
    outcome_.peak_memory_bytes = std::max(outcome_.peak_memory_bytes, note.at("peak_memory").get<int64_t>());
    for (const json& file : note.at("kept")) kept.insert(file.get<size_t>());
    for (const json& file : note.at("copied")) outcome_.bytes_cloned += plan_.copy.files[file.get<size_t>()].size;
  }
  outcome_.files_kept = static_cast<int64_t>(kept.size());
  for (size_t i = 0; i < plan_.copy.files.size(); ++i) {
    const sharding::CopyPlan::File& file = plan_.copy.files[i];
    BEARING_ASSIGN_OR_RETURN(const storage::Publisher::StagedRecord record, publisher_.RecordOf(file.name));
    json note = json::parse(record.note);
    for (const json& error : note.at("errors")) {
      edit::QuantizationError& sum = outcome_.quantization_errors[error.at(0).get<std::string>()];
      sum.error += error.at(1).get<double>();
      sum.all += error.at(2).get<double>();
    }
    note["name"] = file.name;
    note["size"] = record.file.size;
    note["sha256"] = record.file.sha256;
    if (task_.options.verify) outcome_.checked.push_back(edit::FromJson(note));
    outcome_.bytes_written += file.size;
    if (kept.contains(i)) outcome_.bytes_kept += file.size;
    files_.push_back(record.file);
  }
  outcome_.bytes_written -= outcome_.bytes_cloned;
  return absl::OkStatus();
}

// The record, the manifest, and the commit. Rank 0, when all else is staged.
absl::Status BucketRun::Finish() {
  BEARING_RETURN_IF_ERROR(Gather());
  for (const PublishedFile& file : files_) outcome_.files.push_back(file.name);
  std::sort(outcome_.files.begin(), outcome_.files.end());
  const auto stage_text = [&](std::string_view name, const std::string& text) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(PublishedFile file, publisher_.StageText(name, text));
    files_.push_back(std::move(file));
    return absl::OkStatus();
  };
  BEARING_RETURN_IF_ERROR(stage_text("bearing.json", edit::RecordText(plan_, task_.spec, outcome_, task_.record)));
  BEARING_RETURN_IF_ERROR(stage_text("README.md", edit::CardText(plan_, task_.spec, task_.record)));
  std::vector<edit::FileCheck> listed;
  for (const PublishedFile& file : files_) {
    listed.push_back({.name = file.name, .size = file.size, .sha256 = file.sha256, .tensors = {}});
  }
  return publisher_.Commit(files_, edit::ManifestText(plan_, task_.spec, outcome_, task_.record, std::move(listed)));
}

absl::StatusOr<EditOutcome> BucketRun::All() {
  const auto start = std::chrono::steady_clock::now();
  BEARING_ASSIGN_OR_RETURN(const bool finished, BeginTogether(group_, publisher_));
  if (finished) return std::move(outcome_);
  BEARING_RETURN_IF_ERROR(edit::WorkTogether(group_, [&](const std::atomic<bool>& stop) { return StageWeights(stop); }));
  const auto on_rank0 = [&](absl::Status (BucketRun::*work)()) {
    return edit::WorkTogether(group_, [&](const std::atomic<bool>&) {
      if (group_.rank != 0) return absl::OkStatus();
      const absl::Status done = (this->*work)();
      return done.ok() ? done : publisher_.Explained(done);
    });
  };
  BEARING_RETURN_IF_ERROR(on_rank0(&BucketRun::StageSmallFiles));
  if (task_.options.check) {
    BEARING_ASSIGN_OR_RETURN(outcome_.logits, task_.options.check(publisher_.StagedAddress()));
  }
  BEARING_RETURN_IF_ERROR(on_rank0(&BucketRun::Finish));
  outcome_.write_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(outcome_);
}

// All that decides the bytes of the set, manifest included.
absl::StatusOr<std::string> AttemptOf(const sharding::WeightFiles& source, const CheckpointTask& task) {
  const edit::RecordInputs& record = task.record;
  const json salt = {task.options.version, task.options.verify,      record.concept_name,
                     record.base_model,    record.base_model_digest, record.direction,
                     record.more,          record.card_text,         edit::SettingsJson(task.spec)};
  return edit::EditIdentity(source, task.plan, salt.dump());
}

}  // namespace

absl::StatusOr<EditOutcome> EditToBucket(const edit::RankGroup& group, const sharding::WeightFiles& source,
                                         const BucketTarget& target, const CheckpointTask& task) {
  const absl::StatusOr<std::string> attempt = AttemptOf(source, task);
  BEARING_RETURN_IF_ERROR(group.agree(attempt.status()));
  absl::StatusOr<storage::Publisher> publisher = storage::Publisher::Create(target.destination, *attempt, target.options);
  BEARING_RETURN_IF_ERROR(group.agree(publisher.status()));
  return BucketRun(group, source, target, task, *std::move(publisher)).All();
}

}  // namespace bearing::worker
