// The engine alone, for timings that leave out start-up, tokenizing and the loading of weights: loads a model once, then does
// what lines of JSON on the standard input ask for and answers each with a line of JSON. Alone, or as ranks under mpirun.
//
//   engine --model DIR --token-ids ROWS.json [--dtype bfloat16] [--residency streamed] [--gemm plain] [--budget 4096]
//
// {"do": "forward", "rows": n}                     last-position logits of the first n rows
// {"do": "generate", "rows": n, "new_tokens": m}   greedy completions
// {"do": "collect", "rows": n, "positions": p}     mean residual of every block's input at the last p positions
//
// Answers hold seconds, tokens, peak_bytes (of each rank's resident set so far), and what was computed.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "jobs/artifacts.h"
#include "sharding/checkpoint_reader.h"
#include "sharding/shard_plan.h"
#include "sharding/status_macros.h"
#include "worker/comm/mpi_communicator.h"
#include "worker/model/decoder.h"
#include "worker/steer/capture.h"
#include "worker/steer/generate.h"

namespace bearing {
namespace {

using Json = nlohmann::json;

struct Options {
  std::string model;
  std::string token_ids;
  std::string dtype = "float32";
  std::string residency = "resident";
  std::string gemm;  // Empty: measured.
  int64_t budget = 4096;
};

class Stopwatch {
 public:
  double Seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

int64_t PeakResidentBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    int64_t kib = 0;
    if (key == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

// Tokens that the batches of these rows compute.
int64_t TokensOf(const model::Decoder& decoder, const steer::Rows& rows, int64_t keep, int64_t budget) {
  const steer::RowBatcher batcher(decoder.config(), rows, keep);
  int64_t tokens = 0;
  for (const steer::RowRange range : batcher.Cut(budget)) tokens += batcher.TokensOf(range);
  return tokens;
}

class Engine {
 public:
  Engine(const Options& options, comm::Communicator& comm) : options_(options), comm_(comm) {}

  absl::Status Load() {
    const Stopwatch watch;
    BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(options_.token_ids));
    const Json document = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!document.is_array() || document.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("want a JSON list of lists of token ids: file=", options_.token_ids));
    }
    rows_ = document.get<steer::Rows>();
    BEARING_ASSIGN_OR_RETURN(reader_, sharding::CheckpointReader::Open(options_.model));
    BEARING_ASSIGN_OR_RETURN(const auto plan, sharding::MakeShardPlan(reader_->config(), reader_->layout(), comm_.size()));
    model::DecoderOptions options;
    options.dtype = options_.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
    if (options_.residency == "streamed") options.residency = model::Residency::kStreamed;
    if (!options_.gemm.empty()) options.gemm_path = model::GemmPathFromName(options_.gemm);
    BEARING_ASSIGN_OR_RETURN(decoder_, model::Decoder::Load(*reader_, plan, comm_, options));
    replicas_.emplace(*decoder_);
    return Answer({{"seconds", watch.Seconds()}, {"gemm_path", model::GemmPathName(decoder_->gemm_path())}});
  }

  absl::Status Do(const Json& command) {
    const std::string what = command.value("do", "");
    const int64_t wanted = command.value("rows", static_cast<int64_t>(rows_.size()));
    if (wanted < 1 || wanted > static_cast<int64_t>(rows_.size())) {
      return absl::InvalidArgumentError(absl::StrCat("no so many rows: rows=", wanted, " there are=", rows_.size()));
    }
    const steer::Rows rows(rows_.begin(), rows_.begin() + wanted);
    if (what == "forward") return Forward(rows);
    if (what == "generate") return Generate(rows, command.value("new_tokens", 64));
    if (what == "collect") return Collect(rows, command.value("positions", 1));
    return absl::InvalidArgumentError(absl::StrCat("unknown command: do=", what));
  }

 private:
  absl::Status Forward(const steer::Rows& rows) {
    const Stopwatch watch;
    std::vector<int32_t> ids;
    const steer::CaptureTask task = steer::CaptureAll(rows, 0, [&](const steer::CapturedBatch& batch) -> absl::Status {
      BEARING_ASSIGN_OR_RETURN(const std::vector<int32_t> best, steer::ArgMax(*decoder_, decoder_->LocalLogits(batch.last_ND)));
      ids.insert(ids.end(), best.begin(), best.end());
      return absl::OkStatus();
    });
    BEARING_RETURN_IF_ERROR(steer::CaptureResiduals(*replicas_, {&task, 1}, options_.budget, rows.size()));
    return Answer({{"seconds", watch.Seconds()}, {"tokens", TokensOf(*decoder_, rows, 1, options_.budget)}, {"ids", ids}});
  }

  absl::Status Generate(const steer::Rows& rows, int64_t new_tokens) {
    const Stopwatch watch;
    steer::GenerationOptions options;
    options.max_new_tokens = new_tokens;
    options.budget = options_.budget;
    const steer::GenerationTask task{&rows, model::Intervention()};
    BEARING_ASSIGN_OR_RETURN(const std::vector<steer::Rows> made, steer::GenerateRows(*replicas_, {&task, 1}, options));
    return Answer({{"seconds", watch.Seconds()}, {"ids", made[0]}});
  }

  absl::Status Collect(const steer::Rows& rows, int positions) {
    const Stopwatch watch;
    const sharding::ModelConfig& config = decoder_->config();
    steer::ResidualMean mean(config.num_layers(), positions, config.d_model);
    const steer::CaptureTask task = steer::CaptureAll(rows, positions, [&](const steer::CapturedBatch& batch) {
      mean.Add(batch, std::vector<bool>(batch.range.size(), true));
      return absl::OkStatus();
    });
    BEARING_RETURN_IF_ERROR(steer::CaptureResiduals(*replicas_, {&task, 1}, options_.budget, rows.size()));
    BEARING_ASSIGN_OR_RETURN(const at::Tensor mean_PLD, mean.Mean(*replicas_));
    return Answer({{"seconds", watch.Seconds()},
                   {"tokens", TokensOf(*decoder_, rows, positions, options_.budget)},
                   {"layers_read", decoder_->layers_read()},
                   {"norm", at::norm(mean_PLD).item<double>()}});
  }

  absl::Status Answer(Json answer) {
    BEARING_ASSIGN_OR_RETURN(const at::Tensor peaks, comm_.AllGather(at::tensor({PeakResidentBytes()}, at::kLong)));
    answer["peak_bytes"] =
        std::vector<int64_t>(peaks.const_data_ptr<int64_t>(), peaks.const_data_ptr<int64_t>() + peaks.numel());
    answer["threads"] = at::get_num_threads();
    answer["process_cpu_seconds"] = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;  // Of rank 0, since it began.
    if (comm_.rank() == 0) std::cout << answer.dump() << std::endl;
    return absl::OkStatus();
  }

  const Options& options_;
  comm::Communicator& comm_;
  steer::Rows rows_;
  std::unique_ptr<sharding::CheckpointReader> reader_;
  std::unique_ptr<model::Decoder> decoder_;
  std::optional<steer::Replicas> replicas_;
};

absl::Status Serve(const Options& options, comm::Communicator& comm) {
  Engine engine(options, comm);
  BEARING_RETURN_IF_ERROR(engine.Load());
  for (std::string line;;) {
    if (comm.rank() == 0 && !std::getline(std::cin, line)) line.clear();  // An empty line ends all ranks.
    BEARING_RETURN_IF_ERROR(comm.IdleWait(line, 0));
    if (line.empty()) return absl::OkStatus();
    const Json command = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!command.is_object()) return absl::InvalidArgumentError(absl::StrCat("not a JSON object: ", line));
    BEARING_RETURN_IF_ERROR(engine.Do(command));
  }
}

}  // namespace
}  // namespace bearing

int main(int argc, char** argv) {
  setenv("OMP_WAIT_POLICY", "PASSIVE", /*overwrite=*/0);  // As bearing-worker.
  bearing::Options options;
  CLI::App app{"Times the engine on commands from the standard input."};
  app.add_option("--model", options.model, "Model folder")->required();
  app.add_option("--token-ids", options.token_ids, "JSON list of lists of token ids")->required();
  app.add_option("--dtype", options.dtype)->check(CLI::IsMember({"float32", "bfloat16"}));
  app.add_option("--residency", options.residency)->check(CLI::IsMember({"resident", "streamed"}));
  app.add_option("--gemm", options.gemm)
      ->check(CLI::IsMember({"plain", "packed", "widened", "widened-packed", "widened-blocks"}));
  app.add_option("--budget", options.budget, "Tokens of a forward pass")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  auto comm = bearing::comm::MpiCommunicator::Create({absl::Minutes(10)});
  const absl::Status status = comm.ok() ? bearing::Serve(options, **comm) : comm.status();
  if (!status.ok()) std::fprintf(stderr, "engine: %s\n", status.ToString().c_str());
  if (!status.ok() && comm.ok() && (*comm)->size() > 1) (*comm)->Abort(status.ToString());
  return status.ok() ? 0 : 1;
}
