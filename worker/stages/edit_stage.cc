#include <filesystem>

#include "absl/strings/str_cat.h"
#include "sharding/checkpoint_writer.h"
#include "sharding/status_macros.h"
#include "worker/stages/chosen_direction.h"
#include "worker/stages/model_card.h"
#include "worker/stages/stages.h"
#include "worker/steer/orthogonalize.h"

namespace bearing::worker {
namespace {

// Removes a committed checkpoint whose stage was never marked as done (a crash in between).
absl::Status RemoveUnfinishedCheckpoint(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot remove: folder=", folder, " error=", error.message()));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StageFiles> RunEdit(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(const ChosenDirection direction, LoadChosenDirection(context));
  // The folder is made by rank 0 and seen by all: several hosts need a shared file system for it.
  std::string out = context.is_rank0() ? context.output->PathOf("checkpoint") : "";
  BEARING_RETURN_IF_ERROR(context.comm->BroadcastBytes(out, 0));
  BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return RemoveUnfinishedCheckpoint(out); }));

  sharding::WriterOptions options;
  options.untie = context.reader->config().tied_embeddings && !context.spec.edit().keep_tied();
  auto writer = sharding::CheckpointWriter::Create(context.reader, out, options);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, writer.status()));
  BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return (*writer)->Prepare(); }));

  const std::vector<std::string> edited = steer::EditedTensors(*context.reader);
  const int rank = context.comm->rank();
  const int ranks = context.comm->size();
  absl::Status work = (*writer)->CopyUnedited(edited, rank, ranks);
  if (work.ok()) {
    // Ranks have different numbers of pieces, so no collective here: rank 0 reports its own share as the whole's.
    work = steer::EditTensors(*context.reader, **writer, direction.unit, rank, ranks, [&](int64_t done, int64_t total) {
      if (!context.is_rank0()) return absl::OkStatus();
      bearing::v1::Progress progress;
      progress.set_stage(bearing::v1::STAGE_EDIT);
      progress.set_done(done);
      progress.set_total(total);
      progress.set_unit("tensors of rank 0");
      context.observer->OnProgress(progress);
      return context.observer->ShouldStop();
    });
  }
  if (work.ok()) work = (*writer)->Sync();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, work));

  StageFiles files;
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    BEARING_RETURN_IF_ERROR(WriteModelCard(context, absl::StrCat(out, ".partial"), edited));
    BEARING_RETURN_IF_ERROR((*writer)->Commit());
    for (const std::string& file : (*writer)->files()) files.push_back(absl::StrCat("checkpoint/", file));
    files.push_back("checkpoint/README.md");
    files.push_back("checkpoint/bearing.json");
    return absl::OkStatus();
  }));
  return files;
}

}  // namespace bearing::worker
