#include "worker/job_context.h"

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"

namespace bearing::worker {

at::ScalarType ComputeType(const bearing::v1::JobSpec& spec) {
  return spec.model().dtype() == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

absl::StatusOr<model::Decoder*> JobContext::GetDecoder() {
  if (decoder_ == nullptr) {
    model::DecoderOptions options;
    options.dtype = ComputeType(spec);
    options.progress = [this](int64_t done, int64_t total) {
      if (!is_rank0()) return;
      bearing::v1::Progress progress;
      progress.set_stage(bearing::v1::STAGE_LOAD);
      progress.set_done(done);
      progress.set_total(total);
      progress.set_unit("layers");
      observer->OnProgress(progress);
    };
    BEARING_ASSIGN_OR_RETURN(decoder_, model::Decoder::Load(*reader, plan, *comm, options));
  }
  return decoder_.get();
}

absl::Status JobContext::Step(bearing::v1::Stage stage, int64_t done, int64_t total, const std::string& unit,
                              const std::string& note) {
  if (!is_rank0()) return comm::AgreeOnStatus(*comm, absl::OkStatus());
  bearing::v1::Progress progress;
  progress.set_stage(stage);
  progress.set_done(done);
  progress.set_total(total);
  progress.set_unit(unit);
  progress.set_note(note);
  observer->OnProgress(progress);
  return comm::AgreeOnStatus(*comm, observer->ShouldStop());
}

}  // namespace bearing::worker
