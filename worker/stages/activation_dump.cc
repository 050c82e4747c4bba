#include "worker/stages/activation_dump.h"

#include <ATen/ATen.h>

#include <utility>

#include "sharding/status_macros.h"

namespace bearing::worker {

using sharding::SafetensorsPlaces;

absl::StatusOr<ActivationDump> ActivationDump::Create(JobContext& context, size_t positives, size_t negatives) {
  const sharding::ModelConfig& config = context.reader->config();
  const auto shape = [&](size_t prompts) {
    return std::vector<int64_t>{static_cast<int64_t>(prompts), config.num_layers(), config.d_model};
  };
  absl::StatusOr<SafetensorsPlaces> file = absl::UnknownError("not opened");
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json path, context.FromRank0([&]() -> absl::StatusOr<nlohmann::json> {
    const std::string at = context.output->PathOf(kFileName);
    file = SafetensorsPlaces::Create(
        at, {{"positive", sharding::DType::kF32, shape(positives)}, {"negative", sharding::DType::kF32, shape(negatives)}},
        {{"axes", "prompt, layer, d_model"},
         {"position", "-1"},
         {"model_digest", context.model_digest},
         {"format", "bearing/activations/v1"}});
    BEARING_RETURN_IF_ERROR(file.status());
    return nlohmann::json(at);
  }));
  if (!context.is_rank0()) file = SafetensorsPlaces::Join(path.get<std::string>());
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, file.status()));
  return ActivationDump(*std::move(file));
}

absl::Status ActivationDump::Add(const std::string& side, const steer::CapturedBatch& batch) {
  for (size_t i = 0; i < batch.own.size(); ++i) {
    const at::Tensor row_LPD = batch.residual_NLPD.select(0, static_cast<int64_t>(i));
    const at::Tensor last = row_LPD.select(1, row_LPD.size(1) - 1).cpu().contiguous();
    const int64_t prompt = static_cast<int64_t>(batch.range.begin) + batch.own[i];
    const auto values = absl::MakeConstSpan(last.const_data_ptr<float>(), static_cast<size_t>(last.numel()));
    BEARING_RETURN_IF_ERROR(file_.Write(side, prompt * last.numel(), values));
  }
  return absl::OkStatus();
}

absl::Status ActivationDump::Finish(JobContext& context) {
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(*context.comm, file_.Sync()));
  return context.OnRank0([&] { return file_.Finish(); });
}

}  // namespace bearing::worker
