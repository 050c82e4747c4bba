#include "sharding/copy_plan.h"

#include <algorithm>
#include <utility>

#include "sharding/checkpoint_index.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/rewritten_text.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {
namespace {

constexpr std::string_view kUnembeddingShard = "model-lm_head.safetensors";
constexpr int64_t kMaxTextBytes = 256 << 20;

int64_t NumBytes(const DiskTensor& tensor) {
  int64_t bytes = DTypeSize(tensor.dtype);
  for (const int64_t axis : tensor.shape) bytes *= axis;
  return bytes;
}

OutputTensor Copied(const SafetensorsEntry& entry, size_t shard) {
  return {.name = entry.name,
          .dtype = entry.dtype,
          .shape = entry.shape,
          .offset = entry.file_offset,
          .num_bytes = entry.num_bytes,
          .source = OutputTensor::Source{shard, entry.file_offset}};
}

OutputTensor Made(const DiskTensor& tensor) {
  return {.name = tensor.name, .dtype = tensor.dtype, .shape = tensor.shape, .num_bytes = NumBytes(tensor), .source = {}};
}

class Planner {
 public:
  Planner(const WeightFiles& source, const CopyChanges& changes) : source_(source), changes_(changes) {}

  absl::StatusOr<CopyPlan> Make();

 private:
  absl::StatusOr<std::string> SideText(std::string_view name) const {
    return ReadWholeFile(Concat(source_.model_dir(), "/", name), kMaxTextBytes);
  }
  absl::Status FindUntied();
  // The tensors of a shard's copy; `changed` when they are not those of the shard.
  std::vector<OutputTensor> TensorsOf(size_t shard, bool* changed);
  void AddFile(CopyPlan::File file, std::vector<OutputTensor> tensors);
  absl::Status RewriteTexts();

  const WeightFiles& source_;
  const CopyChanges& changes_;
  CopyPlan plan_;
  IndexChanges index_;
  // The unembedding that is to be added, and where its bytes are.
  std::optional<OutputTensor> untied_;
  std::optional<OutputTensor::Source> stored_untied_;  // The model stores one that nobody reads; it gets these bytes.
};

absl::Status Planner::FindUntied() {
  if (!changes_.untie) return absl::OkStatus();
  const WeightFiles::Location* at = source_.Find(changes_.embedding);
  if (at == nullptr) return absl::NotFoundError(Concat("checkpoint has no such tensor: tensor=", changes_.embedding));
  const SafetensorsEntry& embedding = source_.entry(*at);
  const WeightFiles::Location* stored_at = source_.Find(changes_.unembedding);
  if (stored_at == nullptr) {
    untied_ = Copied(embedding, at->shard);
    untied_->name = changes_.unembedding;
    return absl::OkStatus();
  }
  const SafetensorsEntry& stored = source_.entry(*stored_at);
  if (stored.dtype != embedding.dtype || stored.shape != embedding.shape) {
    return absl::FailedPreconditionError(
        Concat("stored unembedding of a tied model has another dtype or shape than the embedding: tensor=", stored.name,
               " got=", DTypeName(stored.dtype), " want=", DTypeName(embedding.dtype)));
  }
  stored_untied_ = OutputTensor::Source{at->shard, embedding.file_offset};
  return absl::OkStatus();
}

std::vector<OutputTensor> Planner::TensorsOf(size_t shard, bool* changed) {
  const WeightFiles::Shard& from = source_.shards()[shard];
  std::vector<OutputTensor> tensors;
  for (const SafetensorsEntry& entry : from.header.entries) {
    if (changes_.removed.contains(entry.name)) {
      *changed = true;
      index_.removed[entry.name] = entry.num_bytes;
    } else if (const auto found = changes_.replaced.find(entry.name); found != changes_.replaced.end()) {
      *changed = true;
      tensors.push_back(Made(found->second));
      index_.removed[entry.name] = entry.num_bytes;
      index_.added[found->second.name] = {from.file_name, tensors.back().num_bytes, DTypeSize(found->second.dtype)};
    } else {
      tensors.push_back(Copied(entry, shard));
      if (stored_untied_ && entry.name == changes_.unembedding) tensors.back().source = stored_untied_;
    }
    const auto added = changes_.added.find(entry.name);
    if (added == changes_.added.end()) continue;
    for (const DiskTensor& tensor : added->second) {
      *changed = true;
      tensors.push_back(Made(tensor));
      index_.added[tensor.name] = {from.file_name, tensors.back().num_bytes, DTypeSize(tensor.dtype)};
    }
  }
  return tensors;
}

void Planner::AddFile(CopyPlan::File file, std::vector<OutputTensor> tensors) {
  file.size = static_cast<int64_t>(file.framed_header.size());
  for (OutputTensor& tensor : tensors) {
    tensor.file = plan_.files.size();
    tensor.offset = file.size;
    file.size += tensor.num_bytes;
    plan_.tensors.push_back(std::move(tensor));
  }
  plan_.files.push_back(std::move(file));
}

absl::Status Planner::RewriteTexts() {
  if (source_.is_sharded()) {
    BEARING_ASSIGN_OR_RETURN(std::string text, SideText(kIndexFileName));
    if (!index_.empty()) {
      BEARING_ASSIGN_OR_RETURN(text, RewriteIndex(text, Concat(source_.model_dir(), "/", kIndexFileName), index_));
    }
    plan_.side_texts[std::string(kIndexFileName)] = std::move(text);
  }
  std::map<std::string, nlohmann::json> keys = changes_.config;
  if (changes_.untie) keys["tie_word_embeddings"] = false;
  if (keys.empty()) return absl::OkStatus();
  BEARING_ASSIGN_OR_RETURN(plan_.side_texts["config.json"],
                           RewriteConfig(source_.config_text(), Concat(source_.model_dir(), "/config.json"), keys));
  return absl::OkStatus();
}

absl::StatusOr<CopyPlan> Planner::Make() {
  BEARING_RETURN_IF_ERROR(FindUntied());
  const bool append = untied_ && !source_.is_sharded();
  for (size_t shard = 0; shard < source_.shards().size(); ++shard) {
    const WeightFiles::Shard& from = source_.shards()[shard];
    bool changed = append;
    std::vector<OutputTensor> tensors = TensorsOf(shard, &changed);
    if (append) tensors.push_back(*untied_);
    CopyPlan::File file{.name = from.file_name, .framed_header = {}, .same_as = {}};
    if (changed) {
      file.framed_header = FrameSafetensorsHeader(HeaderOf(tensors, from.header.metadata));
    } else {
      file.framed_header = FrameSafetensorsHeader(from.header.raw_json);
      // The bytes of a stored unembedding may change.
      const bool replaced = std::any_of(tensors.begin(), tensors.end(), [&](const OutputTensor& tensor) {
        return tensor.source->shard != shard || tensor.source->offset != tensor.offset;
      });
      if (!replaced) file.same_as = shard;
    }
    AddFile(std::move(file), std::move(tensors));
  }
  if (untied_ && !append) {
    for (const CopyPlan::File& file : plan_.files) {
      if (file.name == kUnembeddingShard) {
        return absl::FailedPreconditionError(
            Concat("checkpoint already has a file of the name of the new shard: file=", source_.model_dir(), "/", file.name));
      }
    }
    index_.added[untied_->name] = {std::string(kUnembeddingShard), untied_->num_bytes, DTypeSize(untied_->dtype)};
    AddFile({.name = std::string(kUnembeddingShard),
             .framed_header = FrameSafetensorsHeader(HeaderOf({*untied_}, {{"format", "pt"}})),
             .same_as = {}},
            {*untied_});
  }
  BEARING_RETURN_IF_ERROR(RewriteTexts());
  return std::move(plan_);
}

}  // namespace

absl::StatusOr<CopyPlan> MakeCopyPlan(const WeightFiles& source, const CopyChanges& changes) {
  return Planner(source, changes).Make();
}

}  // namespace bearing::sharding
