// What each saving of the scoring brings, one switched off at a time: savings MODEL_DIR TOKEN_IDS.json [candidates]
// Prints JSON: seconds of each variant and its ratio to the whole. One process, so the ratios hold on a noisy machine.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "jobs/artifacts.h"
#include "sharding/status_macros.h"
#include "worker/comm/communicator.h"
#include "worker/steer/candidate_scores.h"

namespace bearing {
namespace {

using model::GemmPath;

constexpr int kRepeats = 3;
constexpr int64_t kWholeRows = int64_t{1} << 40;  // As `keep`: no prefix is shared.

double BestSeconds(const std::function<absl::Status()>& work, absl::Status& status) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kRepeats && status.ok(); ++i) {
    const auto start = std::chrono::steady_clock::now();
    status = work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return best;
}

// One forward of all rows under one ablation a candidate, cut in batches of `budget`.
absl::Status Ablate(model::Decoder& decoder, const steer::Rows& rows, const std::vector<steer::CandidateVector>& candidates,
                    int64_t keep, int64_t budget, bool logits_everywhere) {
  const steer::RowBatcher batcher(decoder.config(), rows, keep);
  for (size_t c = 0; c < candidates.size();) {
    model::PackedBatch batch;
    std::vector<int> segments;
    std::vector<int64_t> read;
    do {
      model::Intervention ablation;
      ablation.ablate_basis = candidates[c++].direction.unsqueeze(0);
      batcher.AppendGroup({0, rows.size()}, ablation, batch, segments, read);
    } while (c < candidates.size() && batch.num_tokens() + batcher.TokensOf({0, rows.size()}) <= budget);
    BEARING_ASSIGN_OR_RETURN(const at::Tensor last, decoder.Run(batch, read, {}));
    const at::Tensor heads = logits_everywhere ? last.repeat({batch.num_tokens() / last.size(0), 1}) : last;
    decoder.LocalLogits(heads);
  }
  return absl::OkStatus();
}

absl::Status Measure(const std::string& folder, const steer::Rows& rows, int num_candidates) {
  BEARING_ASSIGN_OR_RETURN(const auto reader, sharding::CheckpointReader::Open(folder));
  BEARING_ASSIGN_OR_RETURN(const auto plan, sharding::MakeShardPlan(reader->config(), reader->layout(), 1));
  comm::SelfCommunicator comm;
  const auto load = [&](std::optional<GemmPath> path) {
    model::DecoderOptions options;
    options.gemm_path = path;
    return model::Decoder::Load(*reader, plan, comm, options);
  };
  BEARING_ASSIGN_OR_RETURN(auto decoder, load(std::nullopt));
  at::manual_seed(1);
  std::vector<steer::CandidateVector> candidates(num_candidates);
  for (steer::CandidateVector& candidate : candidates) {
    candidate.direction = at::randn({reader->config().d_model});
    candidate.direction = candidate.direction / at::norm(candidate.direction);
    candidate.mean_difference = candidate.direction;
    candidate.layer = reader->config().num_layers() / 2;
  }
  const int64_t budget = 4096;
  absl::Status status;
  nlohmann::json result = {
      {"gemm_path", model::GemmPathName(decoder->gemm_path())}, {"rows", rows.size()}, {"candidates", num_candidates}};

  const double whole = BestSeconds([&] { return Ablate(*decoder, rows, candidates, 1, budget, false); }, status);
  const double no_prefix = BestSeconds([&] { return Ablate(*decoder, rows, candidates, kWholeRows, budget, false); }, status);
  const double all_logits = BestSeconds([&] { return Ablate(*decoder, rows, candidates, 1, budget, true); }, status);
  const double one_a_pass = BestSeconds([&] { return Ablate(*decoder, rows, candidates, 1, 1, false); }, status);
  result["ablation_seconds"] = whole;
  result["without_shared_prefix"] = no_prefix / whole;
  result["logits_at_every_position"] = all_logits / whole;
  result["one_candidate_a_pass"] = one_a_pass / whole;

  steer::Replicas replicas(*decoder);
  steer::CandidateScorer scorer(replicas, rows, rows, {1}, budget);
  const double branched = BestSeconds([&] { return scorer.ScoreInduce(candidates).status(); }, status);
  std::vector<steer::CandidateVector> from_start = candidates;
  for (steer::CandidateVector& candidate : from_start) candidate.layer = 0;
  const double whole_pass = BestSeconds([&] { return scorer.ScoreInduce(from_start).status(); }, status);
  result["addition_from_the_first_block"] = whole_pass / branched;

  // Padding to the longest row and all layers of the grid are counts, not times.
  int64_t tokens = 0;
  size_t longest = 0;
  for (const auto& row : rows) {
    tokens += static_cast<int64_t>(row.size());
    longest = std::max(longest, row.size());
  }
  result["padded_tokens"] = static_cast<double>(longest * rows.size()) / static_cast<double>(tokens);

  decoder.reset();
  BEARING_ASSIGN_OR_RETURN(decoder, load(GemmPath::kPlain));
  result["plain_gemm"] = BestSeconds([&] { return Ablate(*decoder, rows, candidates, 1, budget, false); }, status) / whole;

  BEARING_RETURN_IF_ERROR(status);
  std::printf("%s\n", result.dump(1).c_str());
  return absl::OkStatus();
}

}  // namespace
}  // namespace bearing

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: savings MODEL_DIR TOKEN_IDS.json [candidates]\n");
    return 2;
  }
  const auto text = bearing::jobs::ReadFile(argv[2]);
  const auto rows = nlohmann::json::parse(text.ok() ? *text : "", nullptr, false);
  if (rows.is_discarded()) {
    std::fprintf(stderr, "not a JSON list of lists of ids: %s\n", argv[2]);
    return 2;
  }
  const absl::Status status =
      bearing::Measure(argv[1], rows.get<bearing::steer::Rows>(), argc > 3 ? std::max(1, std::atoi(argv[3])) : 4);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
