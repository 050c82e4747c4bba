#include "worker/probe.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "jobs/artifacts.h"
#include "jobs/report/probe_report.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/memory_rules.h"
#include "sharding/shard_plan.h"
#include "sharding/status_macros.h"
#include "storage/model_source.h"
#include "worker/model/decoder.h"
#include "worker/probe_inputs.h"
#include "worker/probe_output.h"
#include "worker/steer/probe.h"
#include "worker/version.h"

namespace bearing::worker {
namespace {

namespace fs = std::filesystem;

// The path of the numbers, and the folder of JSON and page (empty: none are wanted).
struct ProbePaths {
  std::string numbers;
  std::string folder;
};

absl::StatusOr<ProbePaths> PreparePlaces(const std::string& out) {
  if (absl::EndsWith(out, ".safetensors")) return ProbePaths{out, ""};
  std::error_code error;
  fs::create_directories(out, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("--out: cannot make the folder: ", out, ": ", error.message()));
  return ProbePaths{(fs::path(out) / "probe.safetensors").string(), out};
}

std::string ModelName(const std::string& model) {
  fs::path path = fs::path(model).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

absl::Status WriteReport(const ProbePaths& paths, const jobs::ProbeReport& report) {
  std::printf("%s", jobs::ProbeSummary(report).c_str());
  if (paths.folder.empty()) {
    std::printf("%s\n", paths.numbers.c_str());
    return absl::OkStatus();
  }
  const std::string json = (fs::path(paths.folder) / "probe.json").string();
  const std::string html = (fs::path(paths.folder) / "probe.html").string();
  // Texts of tokens may be parts of characters.
  const std::string json_text =
      jobs::ProbeJson(report).dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
  BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(json, json_text + "\n"));
  BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(html, jobs::RenderProbeHtml(report)));
  std::printf("%s\n%s\n%s\n", paths.numbers.c_str(), json.c_str(), html.c_str());
  return absl::OkStatus();
}

absl::Status Probe(comm::Communicator& comm, const ProbeOptions& options) {
  const bool is_root = comm.rank() == 0;
  const auto source = storage::ModelSource::Open(options.model);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, source.status()));
  const auto opened = (*source)->OpenCheckpoint();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, opened.status()));
  const sharding::CheckpointReader& reader = **opened;
  const sharding::ModelConfig& config = reader.config();
  const auto inputs = ReadProbeInputs(options, **source, config);
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, inputs.status()));
  const absl::StatusOr<std::string> digest = reader.Digest();
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, digest.status()));
  BEARING_ASSIGN_OR_RETURN(const sharding::ShardPlan plan, sharding::MakeShardPlan(config, reader.layout(), comm.size()));

  // Before the model is loaded: a place that cannot be written, or a disk too small for the numbers, shows now.
  ProbeShape shape;
  shape.num_layers = config.num_layers();
  shape.num_heads = config.layers.front().attention.num_heads;
  shape.d_model = config.d_model;
  shape.token_prompts = static_cast<size_t>(options.token_prompts);
  absl::StatusOr<ProbePaths> paths = ProbePaths();
  std::optional<ProbeOutput> output;
  const auto prepare = [&]() -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(paths, PreparePlaces(options.out));
    BEARING_ASSIGN_OR_RETURN(ProbeOutput made, ProbeOutput::Create(paths->numbers, *inputs, shape, options.dtype));
    output.emplace(std::move(made));
    return absl::OkStatus();
  };
  BEARING_RETURN_IF_ERROR(comm::AgreeOnStatus(comm, is_root ? prepare() : absl::OkStatus()));

  model::DecoderOptions decoder_options;
  decoder_options.dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  BEARING_ASSIGN_OR_RETURN(const auto decoder, model::Decoder::Load(reader, plan, comm, decoder_options));
  BEARING_ASSIGN_OR_RETURN(const steer::Prober prober, steer::Prober::Make(*decoder, reader, plan, inputs->basis_KD));
  const int64_t budget = sharding::TokenBudget(config, int64_t{1} << 30);
  for (size_t s = 0; s < inputs->sets.size(); ++s) {
    BEARING_RETURN_IF_ERROR(prober.Run(inputs->sets[s].rows, shape.token_prompts, budget, [&](const steer::ProbedBatch& batch) {
      return is_root ? output->Take(s, batch) : absl::OkStatus();
    }));
  }

  const auto finish = [&]() -> absl::Status {
    jobs::ProbeReport report;
    report.version = kVersion;
    report.created = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
    report.model_name = ModelName(options.model);
    report.model_digest = *digest;
    report.dtype = options.dtype;
    report.num_layers = static_cast<int>(shape.num_layers);
    report.num_heads = static_cast<int>(shape.num_heads);
    report.directions = inputs->directions;
    BEARING_RETURN_IF_ERROR(output->Finish(report));
    return WriteReport(*paths, report);
  };
  return comm::AgreeOnStatus(comm, is_root ? finish() : absl::OkStatus());
}

}  // namespace

absl::Status RunProbe(comm::Communicator& comm, const ProbeOptions& options) {
  try {
    return Probe(comm, options);
  } catch (const std::exception& error) {
    if (comm.size() > 1) comm.Abort(error.what());
    return absl::InternalError(error.what());
  }
}

}  // namespace bearing::worker
