#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "jobs/edit_fields.h"
#include "sharding/memory_rules.h"
#include "sharding/status_macros.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/edit_checkpoint.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/edit_record.h"
#include "worker/stages/chosen_direction.h"
#include "worker/stages/edit_spec_of.h"
#include "worker/stages/model_card.h"
#include "worker/stages/small_forms.h"
#include "worker/stages/stages.h"
#include "worker/version.h"

namespace bearing::worker {
namespace {

// Removes a committed checkpoint whose stage was never marked as done (a crash in between).
absl::Status RemoveUnfinishedCheckpoint(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot remove: folder=", folder, " error=", error.message()));
  return absl::OkStatus();
}

absl::Status ReportEdit(JobContext& context, const char* what, int64_t done, int64_t total) {
  if (!context.is_rank0()) return absl::OkStatus();
  bearing::v1::Progress progress;
  progress.set_stage(bearing::v1::STAGE_EDIT);
  progress.set_done(done >> 20);
  progress.set_total(total >> 20);
  progress.set_unit("MiB of rank 0");
  progress.set_note(what);
  context.observer->OnProgress(progress);
  return context.observer->ShouldStop();
}

absl::StatusOr<StageFiles> WriteCheckpoint(JobContext& context, const edit::EditSpec& spec) {
  // The folder is made by rank 0 and seen by all: several hosts need a shared file system for it.
  std::string out = context.is_rank0() ? context.output->PathOf("checkpoint") : "";
  BEARING_RETURN_IF_ERROR(context.comm->BroadcastBytes(out, 0));
  BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return RemoveUnfinishedCheckpoint(out); }));

  const edit::RankGroup group{context.comm->rank(), context.comm->size(),
                              [&](const absl::Status& status) { return comm::AgreeOnStatus(*context.comm, status); }};
  const sharding::WeightFiles& source = context.reader->weights();
  const absl::StatusOr<edit::EditPlan> plan = edit::MakeEditPlan(source, spec);
  BEARING_RETURN_IF_ERROR(group.agree(plan.status()));
  edit::EditOptions options;
  options.threads =
      static_cast<int>(sharding::EditThreads(static_cast<int>(std::thread::hardware_concurrency()) / group.ranks));
  options.progress = [&](const char* what, int64_t done, int64_t total) { return ReportEdit(context, what, done, total); };
  options.version = kVersion;
  StageFiles files;
  const edit::Describe describe = [&](const edit::EditOutcome& outcome, const std::string& staged) -> absl::Status {
    for (const std::string& file : outcome.files) files.push_back(absl::StrCat("checkpoint/", file));
    files.insert(files.end(), {"checkpoint/README.md", "checkpoint/bearing.json"});
    BEARING_ASSIGN_OR_RETURN(const edit::RecordInputs record, RecordOfJob(context));
    return edit::WriteRecord(*plan, spec, outcome, record, staged, /*with_manifest=*/false);
  };
  BEARING_RETURN_IF_ERROR(edit::EditCheckpoint(source, *plan, out, group, options, describe).status());
  return files;
}

}  // namespace

absl::StatusOr<StageFiles> RunEdit(JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(const ChosenDirection chosen, LoadChosenDirection(context));
  BEARING_ASSIGN_OR_RETURN(const JobEdit edit, JobEditOf(context, chosen));
  // The small ones first: what cannot be had is seen before the long work.
  StageFiles files;
  BEARING_RETURN_IF_ERROR(context.OnRank0([&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(const edit::RecordInputs record, RecordOfJob(context));
    BEARING_ASSIGN_OR_RETURN(files, WriteSmallForms(context, edit, chosen, record));
    return absl::OkStatus();
  }));
  if (!jobs::WritesForm(context.spec.edit(), jobs::kCheckpointForm)) return files;
  BEARING_ASSIGN_OR_RETURN(const StageFiles checkpoint, WriteCheckpoint(context, edit.checkpoint));
  files.insert(files.end(), checkpoint.begin(), checkpoint.end());
  return files;
}

}  // namespace bearing::worker
