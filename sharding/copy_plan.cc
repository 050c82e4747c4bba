#include "sharding/copy_plan.h"

#include <algorithm>
#include <utility>

#include "sharding/checkpoint_index.h"
#include "sharding/concat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"
#include "sharding/untie.h"

namespace bearing::sharding {
namespace {

constexpr std::string_view kUnembeddingShard = "model-lm_head.safetensors";
constexpr int64_t kMaxTextBytes = 256 << 20;

CopyRegion MakeRegion(const SafetensorsEntry& entry, size_t file, int64_t offset, size_t source_shard) {
  return {.tensor = entry.name,
          .file = file,
          .offset = offset,
          .source_shard = source_shard,
          .source_offset = entry.file_offset,
          .num_bytes = entry.num_bytes,
          .rows = entry.shape.size() == 2 ? entry.shape[0] : 1};
}

CopyPlan PlainCopy(const CheckpointReader& reader) {
  CopyPlan plan;
  for (size_t i = 0; i < reader.shards().size(); ++i) {
    const CheckpointReader::Shard& shard = reader.shards()[i];
    plan.files.push_back(
        {.name = shard.file_name, .framed_header = FrameSafetensorsHeader(shard.header.raw_json), .size = shard.file_size});
    for (const SafetensorsEntry& entry : shard.header.entries) {
      plan.regions.push_back(MakeRegion(entry, i, entry.file_offset, i));
    }
  }
  return plan;
}

absl::StatusOr<std::string> SideText(const CheckpointReader& reader, std::string_view name) {
  return ReadWholeFile(Concat(reader.model_dir(), "/", name), kMaxTextBytes);
}

// The only file gets the unembedding at its end; its header grows, so that all data moves by as much.
void AppendToSingleFile(const CheckpointReader& reader, const SafetensorsEntry& unembedding, size_t source_shard,
                        CopyPlan* plan) {
  const CheckpointReader::Shard& shard = reader.shards()[0];
  const int64_t data_bytes = shard.file_size - shard.header.data_begin;
  CopyPlan::File& file = plan->files[0];
  file.framed_header = FrameSafetensorsHeader(AppendTensorToHeader(shard.header.raw_json, unembedding, data_bytes));
  const int64_t moved = static_cast<int64_t>(file.framed_header.size()) - shard.header.data_begin;
  for (CopyRegion& region : plan->regions) region.offset += moved;
  plan->regions.push_back(MakeRegion(unembedding, 0, shard.file_size + moved, source_shard));
  file.size = shard.file_size + moved + unembedding.num_bytes;
}

absl::Status AddShard(const CheckpointReader& reader, const SafetensorsEntry& unembedding, size_t source_shard,
                      CopyPlan* plan) {
  BEARING_ASSIGN_OR_RETURN(const std::string index, SideText(reader, kIndexFileName));
  BEARING_ASSIGN_OR_RETURN(plan->side_texts[std::string(kIndexFileName)],
                           AddToIndex(index, Concat(reader.model_dir(), "/", kIndexFileName), unembedding, kUnembeddingShard));
  for (const CopyPlan::File& file : plan->files) {
    if (file.name == kUnembeddingShard) {
      return absl::FailedPreconditionError(
          Concat("checkpoint already has a file of the name of the new shard: file=", reader.model_dir(), "/", file.name));
    }
  }
  CopyPlan::File file{.name = std::string(kUnembeddingShard),
                      .framed_header = FrameSafetensorsHeader(HeaderOfOneTensor(unembedding)),
                      .size = 0};
  const auto header_bytes = static_cast<int64_t>(file.framed_header.size());
  file.size = header_bytes + unembedding.num_bytes;
  plan->regions.push_back(MakeRegion(unembedding, plan->files.size(), header_bytes, source_shard));
  plan->files.push_back(std::move(file));
  return absl::OkStatus();
}

// A tied model may store an unembedding, which nobody reads; untied, it must be the embedding.
absl::Status FillStoredUnembedding(const SafetensorsEntry& stored, const SafetensorsEntry& embedding, size_t source_shard,
                                   CopyPlan* plan) {
  if (stored.dtype != embedding.dtype) {
    return absl::FailedPreconditionError(
        Concat("stored unembedding of a tied model has another dtype than the embedding: tensor=", stored.name,
               " got=", DTypeName(stored.dtype), " want=", DTypeName(embedding.dtype)));
  }
  for (CopyRegion& region : plan->regions) {
    if (region.tensor != stored.name) continue;
    region.source_shard = source_shard;
    region.source_offset = embedding.file_offset;
  }
  return absl::OkStatus();
}

absl::Status Untie(const CheckpointReader& reader, CopyPlan* plan) {
  const std::string config_path = Concat(reader.model_dir(), "/config.json");
  BEARING_ASSIGN_OR_RETURN(const std::string config, SideText(reader, "config.json"));
  BEARING_ASSIGN_OR_RETURN(plan->side_texts["config.json"], UntieConfig(config, config_path));

  const ParamEntry* embedding_entry = reader.layout().Find(ParamRole::kEmbedding);
  BEARING_ASSIGN_OR_RETURN(const CheckpointReader::Location at, reader.Find(embedding_entry->name));
  const SafetensorsEntry& embedding = reader.entry(at);
  if (const ParamEntry* stored = reader.layout().Find(ParamRole::kUnembedding); stored != nullptr) {
    BEARING_ASSIGN_OR_RETURN(const CheckpointReader::Location stored_at, reader.Find(stored->name));
    return FillStoredUnembedding(reader.entry(stored_at), embedding, at.shard, plan);
  }
  SafetensorsEntry unembedding = embedding;
  unembedding.name = reader.layout().unembedding_name();
  if (reader.shards().size() > 1 || reader.shards()[0].file_name != kSingleFileName) {
    return AddShard(reader, unembedding, at.shard, plan);
  }
  AppendToSingleFile(reader, unembedding, at.shard, plan);
  return absl::OkStatus();
}

bool Continues(const CopyRegion& last, const CopyRegion& next) {
  return last.file == next.file && last.source_shard == next.source_shard && last.offset + last.num_bytes == next.offset &&
         last.source_offset + last.num_bytes == next.source_offset;
}

}  // namespace

absl::StatusOr<CopyPlan> MakeCopyPlan(const CheckpointReader& reader, bool untie) {
  CopyPlan plan = PlainCopy(reader);
  if (reader.shards()[0].file_name != kSingleFileName || reader.shards().size() > 1) {
    BEARING_ASSIGN_OR_RETURN(plan.side_texts[std::string(kIndexFileName)], SideText(reader, kIndexFileName));
  }
  if (untie && reader.config().tied_embeddings) BEARING_RETURN_IF_ERROR(Untie(reader, &plan));
  return plan;
}

std::vector<CopyRegion> RegionsOfRank(const CopyPlan& plan, const std::set<std::string>& left_out, int64_t rank,
                                      int64_t ranks) {
  std::vector<CopyRegion> joined;
  int64_t total = 0;
  for (const CopyRegion& region : plan.regions) {
    if (left_out.contains(region.tensor) || region.num_bytes == 0) continue;
    total += region.num_bytes;
    if (!joined.empty() && Continues(joined.back(), region)) {
      joined.back().num_bytes += region.num_bytes;
    } else {
      joined.push_back(region);
      joined.back().tensor.clear();
    }
  }
  const Range mine = EvenRange(total, ranks, rank);
  std::vector<CopyRegion> part;
  int64_t position = 0;  // Of the region's first byte among all bytes to copy.
  for (CopyRegion& region : joined) {
    const int64_t begin = std::max(mine.begin, position);
    const int64_t end = std::min(mine.end, position + region.num_bytes);
    if (begin < end) {
      CopyRegion cut = region;
      cut.offset += begin - position;
      cut.source_offset += begin - position;
      cut.num_bytes = end - begin;
      part.push_back(std::move(cut));
    }
    position += region.num_bytes;
  }
  return part;
}

}  // namespace bearing::sharding
