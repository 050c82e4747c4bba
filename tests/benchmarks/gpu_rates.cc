// What the decoder does on a device, for gpu_bench.py, which runs transformers on the same model and the same numbers of
// tokens.
//
//   gpu_rates check                      says on which device it would run (exit 0) or why on none (exit 3)
//   gpu_rates MODEL_DIR '{"device": "cuda", "dtype": "bfloat16", ...}'     prints a line of JSON; see Work below
//
// "device": "cpu-aten" runs the same operations on the CPU. Token ids are random, lengths equal, so that nothing is padded on
// either side.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "sharding/status_macros.h"
#include "worker/comm/cuda_backend.h"
#include "worker/model/device_memory.h"
#include "worker/steer/candidate_scores.h"
#include "worker/steer/generate.h"

namespace bearing {
namespace {

struct Work {
  std::string device;      // "cuda" or "cpu-aten".
  std::string dtype;       // "bfloat16" or "float32".
  int64_t peak_size;       // The peak is that of a product of square matrices of this size.
  int64_t prefill_rows;    // Prompts of a forward pass,
  int64_t prefill_tokens;  // of so many tokens each.
  int64_t decode_rows;     // Prompts that are continued,
  int64_t decode_prompt;   // of so many tokens,
  int64_t decode_new;      // by so many.
  int64_t candidates;
  int64_t candidate_rows;  // Prompts a side,
  int64_t candidate_tokens;
  int64_t budget;  // Tokens a pass.
  int repeats;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Work, device, dtype, peak_size, prefill_rows, prefill_tokens, decode_rows, decode_prompt,
                                   decode_new, candidates, candidate_rows, candidate_tokens, budget, repeats)

double D(int64_t n) { return static_cast<double>(n); }

// The best of several runs, behind one that does not count.
absl::StatusOr<double> BestSeconds(const at::Device& device, int repeats, const std::function<absl::Status()>& work) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= repeats; ++i) {
    model::Synchronize(device);
    const auto start = std::chrono::steady_clock::now();
    BEARING_RETURN_IF_ERROR(work());
    model::Synchronize(device);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (i > 0) best = std::min(best, took.count());
  }
  return best;
}

steer::Rows RandomRows(int64_t rows, int64_t tokens, int64_t vocab) {
  const at::Tensor ids = at::randint(0, vocab, {rows, tokens}, at::kInt);
  steer::Rows all;
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t* row = ids[r].const_data_ptr<int32_t>();
    all.emplace_back(row, row + tokens);
  }
  return all;
}

absl::StatusOr<double> PeakFlops(const at::Device& device, at::ScalarType dtype, const Work& work) {
  const at::Tensor a = at::randn({work.peak_size, work.peak_size}).to(dtype).to(device);
  const at::Tensor b = at::randn({work.peak_size, work.peak_size}).to(dtype).to(device);
  at::Tensor c = at::empty_like(a);
  constexpr int kTimes = 10;
  BEARING_ASSIGN_OR_RETURN(const double seconds, BestSeconds(device, work.repeats, [&] {
                             for (int i = 0; i < kTimes; ++i) at::mm_out(c, a, b.t());
                             return absl::OkStatus();
                           }));
  return kTimes * 2 * std::pow(D(work.peak_size), 3) / seconds;
}

// Of a pass over rows of equal length that is read at their last tokens (the last block works behind its attention only there).
double PrefillFlops(const sharding::ModelConfig& config, int64_t rows, int64_t tokens) {
  double flops = 0;
  for (int64_t l = 0; l < config.num_layers(); ++l) {
    const sharding::AttentionSpec& attention = config.layers[l].attention;
    const int64_t width = attention.num_heads * attention.head_dim;
    const int64_t qkv = config.d_model * (width + 2 * attention.num_kv_heads * attention.head_dim);
    const int64_t behind = config.d_model * (width + 3 * config.layers[l].mlp.intermediate_size);
    const bool last = l + 1 == config.num_layers();
    const int64_t pairs = last ? tokens : tokens * (tokens + 1) / 2;
    flops += 2 * D(rows) * (D(tokens) * D(qkv) + D(last ? 1 : tokens) * D(behind)) + 4 * D(rows) * D(pairs) * D(width);
  }
  return flops;
}

absl::StatusOr<nlohmann::json> MeasurePrefill(model::Decoder& decoder, const Work& work, double peak) {
  model::PackedBatch batch;
  std::vector<int> segments;
  for (const auto& row : RandomRows(work.prefill_rows, work.prefill_tokens, decoder.config().vocab_size)) {
    segments.push_back(batch.Add(row));
  }
  const std::vector<int64_t> read = batch.LastTokens(segments);
  BEARING_ASSIGN_OR_RETURN(const double seconds,
                           BestSeconds(decoder.device(), work.repeats, [&] { return decoder.Run(batch, read, {}).status(); }));
  const double flops = PrefillFlops(decoder.config(), work.prefill_rows, work.prefill_tokens) / seconds;
  return nlohmann::json{
      {"tokens_per_s", D(batch.num_tokens()) / seconds}, {"flops_per_s", flops}, {"share_of_peak", flops / peak}};
}

absl::StatusOr<nlohmann::json> MeasureDecode(model::Decoder& decoder, const Work& work) {
  const steer::Rows rows = RandomRows(work.decode_rows, work.decode_prompt, decoder.config().vocab_size);
  steer::GenerationOptions options;
  options.budget = std::max(work.budget, work.decode_rows * work.decode_prompt);
  steer::Replicas alone(decoder);
  const auto seconds_of = [&](int64_t new_tokens) {
    options.max_new_tokens = new_tokens;
    const steer::GenerationTask task{&rows, {}};
    return BestSeconds(decoder.device(), work.repeats, [&] {
      return steer::GenerateRows(alone, {&task, 1}, options).status();
    });
  };
  BEARING_ASSIGN_OR_RETURN(const double one, seconds_of(1));
  BEARING_ASSIGN_OR_RETURN(const double all, seconds_of(work.decode_new));
  return nlohmann::json{{"rows", work.decode_rows},
                        {"tokens_per_s", D(work.decode_rows * (work.decode_new - 1)) / (all - one)}};
}

// Every candidate through all three tests.
absl::StatusOr<nlohmann::json> MeasureCandidates(model::Decoder& decoder, const Work& work) {
  const sharding::ModelConfig& config = decoder.config();
  const steer::Rows positive = RandomRows(work.candidate_rows, work.candidate_tokens, config.vocab_size);
  const steer::Rows negative = RandomRows(work.candidate_rows, work.candidate_tokens, config.vocab_size);
  std::vector<steer::CandidateVector> candidates;
  for (int64_t c = 0; c < work.candidates; ++c) {
    steer::CandidateVector candidate;
    candidate.layer = c % config.num_layers();
    candidate.mean_difference = at::randn({config.d_model});
    candidate.direction = candidate.mean_difference / at::norm(candidate.mean_difference);
    candidates.push_back(std::move(candidate));
  }
  steer::Replicas alone(decoder);
  BEARING_ASSIGN_OR_RETURN(const double seconds, BestSeconds(decoder.device(), work.repeats, [&]() -> absl::Status {
                             steer::CandidateScorer scorer(alone, positive, negative, {1, 2}, work.budget);
                             BEARING_RETURN_IF_ERROR(scorer.RunBaseline());
                             BEARING_RETURN_IF_ERROR(scorer.ScoreInduce(candidates).status());
                             BEARING_RETURN_IF_ERROR(scorer.ScoreKl(candidates).status());
                             return scorer.ScoreBypass(candidates).status();
                           }));
  return nlohmann::json{{"candidates_per_s", D(work.candidates) / seconds}};
}

absl::StatusOr<nlohmann::json> Measure(const std::string& folder, const Work& work) {
  comm::SelfCommunicator self;
  std::unique_ptr<comm::Communicator> on_device;
  std::string name = "cpu";
  if (work.device == "cuda") {
    BEARING_ASSIGN_OR_RETURN(on_device, comm::MakeCudaCommunicator(self, {}));
    BEARING_ASSIGN_OR_RETURN(const comm::CudaDevice device, comm::CurrentCudaDevice());
    name = device.name;
  } else if (work.device != "cpu-aten") {
    return absl::InvalidArgumentError("device must be cuda or cpu-aten: " + work.device);
  }
  comm::Communicator& comm = on_device != nullptr ? *on_device : self;
  at::manual_seed(1);
  model::DecoderOptions options;
  options.dtype = work.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  options.aten_ops = true;
  BEARING_ASSIGN_OR_RETURN(const auto reader, sharding::CheckpointReader::Open(folder));
  BEARING_ASSIGN_OR_RETURN(const auto plan, sharding::MakeShardPlan(reader->config(), reader->layout(), 1));
  BEARING_ASSIGN_OR_RETURN(const auto decoder, model::Decoder::Load(*reader, plan, comm, options));
  BEARING_ASSIGN_OR_RETURN(const double peak, PeakFlops(comm.device(), options.dtype, work));
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json prefill, MeasurePrefill(*decoder, work, peak));
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json decode, MeasureDecode(*decoder, work));
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json candidates, MeasureCandidates(*decoder, work));
  return nlohmann::json{{"device", name},     {"dtype", work.dtype}, {"peak_flops_per_s", peak},
                        {"prefill", prefill}, {"decode", decode},    {"candidates", candidates}};
}

int Check() {
  std::string why;
  if (!comm::CudaAvailable(&why)) {
    std::printf("%s\n", why.c_str());
    return 3;
  }
  comm::SelfCommunicator self;
  const auto made = comm::MakeCudaCommunicator(self, {});
  const auto device = made.ok() ? comm::CurrentCudaDevice() : made.status();
  std::printf("%s\n", device.ok() ? device->name.c_str() : std::string(device.status().message()).c_str());
  return device.ok() ? 0 : 3;
}

int Run(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "check") return Check();
  if (argc != 3) {
    std::fprintf(stderr, "usage: gpu_rates check | gpu_rates MODEL_DIR WORK_JSON\n");
    return 2;
  }
  const auto result = Measure(argv[1], nlohmann::json::parse(argv[2]).get<Work>());
  if (!result.ok()) {
    std::fprintf(stderr, "gpu_rates: %s\n", result.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", result->dump().c_str());
  return 0;
}

}  // namespace
}  // namespace bearing

int main(int argc, char** argv) {
  try {
    return bearing::Run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_rates: %s\n", error.what());
    return 1;
  }
}
