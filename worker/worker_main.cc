// bearing-worker: one process a rank. `serve` takes jobs from a coordinator, `trace` and `probe` run prompts locally, `edit`
// writes a direction into weights, `search` tunes what is removed, `calibrate` measures this machine.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "sharding/status_macros.h"
#include "worker/calibrate.h"
#include "worker/comm/bootstrap.h"
#include "worker/comm/mpi_communicator.h"
#include "worker/comm/store_communicator.h"
#include "worker/device.h"
#include "worker/edit/edit_command.h"
#include "worker/edit_at_address.h"
#include "worker/exit_code.h"
#include "worker/group_check.h"
#include "worker/logit_check.h"
#include "worker/memory.h"
#include "worker/probe.h"
#include "worker/search/run_search.h"
#include "worker/search/search_options.h"
#include "worker/serve.h"
#include "worker/trace.h"
#include "worker/version.h"

namespace {

// The group that this process was started into; `mpi` asks for MPI whatever the launcher's variables say. Ranks that meet at a
// store never touch MPI: Open MPI ends processes that srun started without telling it their number.
absl::StatusOr<std::unique_ptr<bearing::comm::Communicator>> JoinGroup(bool mpi, absl::Duration timeout) {
  using bearing::comm::Bootstrap;
  if (mpi) return bearing::comm::MpiCommunicator::Create({timeout});
  BEARING_ASSIGN_OR_RETURN(Bootstrap bootstrap,
                           bearing::comm::ReadBootstrap([](const char* name) { return std::getenv(name); }));
  switch (bootstrap.way) {
    case Bootstrap::Way::kAlone:
      return std::make_unique<bearing::comm::SelfCommunicator>();
    case Bootstrap::Way::kStore:
      bootstrap.store.timeout = timeout;
      return bearing::comm::MakeStoreCommunicator(bootstrap.store);
    case Bootstrap::Way::kMpi:
      break;
  }
  return bearing::comm::MpiCommunicator::Create({timeout});
}

void AddProbeOptions(CLI::App& command, bearing::worker::ProbeOptions& probe) {
  command.add_option("--model", probe.model, "Model folder")->required();
  command.add_option("--direction", probe.directions, "Direction file; may be given several times")->required();
  CLI::Option* prompts = command.add_option("--prompts", probe.prompts, "Prompt file (json, jsonl, csv, txt)");
  CLI::Option* ids = command.add_option("--token-ids", probe.token_ids, "JSON list of lists of token ids");
  prompts->excludes(ids);
  CLI::Option* compare = command.add_option("--compare", probe.compare, "A second set, in a file of the same kind");
  command.add_option("--suffix", probe.suffix, "Or: the prompts with this behind them")->excludes(compare);
  command.add_option("--column", probe.column, "Column or key of the prompts");
  command.add_option("--count", probe.count, "Prompts of each file, from the start; 0 = all")->check(CLI::NonNegativeNumber);
  command.add_option("--token-prompts", probe.token_prompts, "Prompts of each set that are probed token by token")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  command.add_option("--out", probe.out, "Folder, or a file that ends in .safetensors")->required();
  command.add_option("--dtype", probe.dtype, "Compute type")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
}

int Finish(bearing::comm::Communicator& comm, const absl::Status& status) {
  // Agreed errors are the same on every rank: said once.
  if (!status.ok() && comm.rank() == 0) {
    std::fprintf(stderr, "bearing-worker: error: %s\n", std::string(status.message()).c_str());
  }
  return bearing::worker::ExitCode(status);
}

}  // namespace

int main(int argc, char** argv) {
  // Waiting threads must not spin on cores that others need.
  setenv("OMP_WAIT_POLICY", "PASSIVE", /*overwrite=*/0);
  bearing::worker::BoundProductCaches();

  CLI::App app{"One tensor-parallel rank of Bearing. Started by mpirun, srun or torchrun, or alone as a group of one."};
  app.require_subcommand(1);
  app.set_version_flag("--version", bearing::worker::kVersion);
  double timeout_minutes = 10;
  app.add_option("--collective-timeout-minutes", timeout_minutes, "A collective that takes longer ends all ranks; 0 = no limit")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);

  std::string bootstrap = "auto";
  app.add_option("--bootstrap", bootstrap,
                 "How ranks meet: mpi, or auto = as the launcher's variables say (mpirun, srun, torchrun, JobSet, LWS)")
      ->check(CLI::IsMember({"auto", "mpi"}))
      ->capture_default_str();

  bearing::worker::ServeOptions serve;
  double idle_seconds = 0;
  CLI::App* serve_command = app.add_subcommand("serve",
                                               "Take jobs from a coordinator until stopped.\n"
                                               "Example: mpirun -n 2 bearing-worker serve --coordinator 127.0.0.1:7070");
  serve_command->add_option("--coordinator", serve.coordinator, "host:port of the coordinator")->required();
  serve_command->add_option("--ca-file", serve.security.ca_file, "PEM CAs of the coordinator; turns on TLS (BEARING_CA_FILE)");
  serve_command->add_flag("--tls", serve.security.tls, "Encrypt, with the system's CAs (BEARING_TLS=1)");
  serve_command->add_option("--cert", serve.security.cert_file, "PEM certificate of this group (BEARING_CERT_FILE)");
  serve_command->add_option("--key", serve.security.key_file, "Its PEM key (BEARING_KEY_FILE)");
  serve_command->add_option("--token-file", serve.security.token_file,
                            "File with a token of the scope worker (BEARING_TOKEN_FILE)");
  serve_command->add_flag("--insecure-plaintext-token", serve.security.allow_plaintext,
                          "Send the token unencrypted to another machine");
  serve_command->add_flag("--json-log", serve.json_log, "Log one JSON object a line");
  serve_command->add_option("--group-id", serve.group_id, "Name of the group, unique for its life (default: drawn)");
  serve_command->add_flag("--keep-staged", serve.keep_staged, "Keep what a cancelled job had begun to write, for a rerun")
      ->envname("BEARING_KEEP_STAGED");
  serve_command->add_option("--exit-when-idle", idle_seconds, "Leave after so many seconds without a job; 0 = never");

  bearing::worker::TraceOptions trace;
  CLI::App* trace_command = app.add_subcommand(
      "trace",
      "Write residuals and logits of prompts.\nExample: bearing-worker trace --model DIR --prompts p.json --out t.safetensors");
  trace_command->add_option("--model", trace.model, "Model folder")->required();
  CLI::Option* prompts = trace_command->add_option("--prompts", trace.prompts, "Prompt file (json, jsonl, csv, txt)");
  CLI::Option* ids = trace_command->add_option("--token-ids", trace.token_ids, "JSON list of lists of token ids");
  prompts->excludes(ids);
  trace_command->add_option("--out", trace.out, "File to write")->required();
  trace_command->add_option("--dtype", trace.dtype, "Compute type")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  trace_command->add_option("--ablate", trace.ablate, "Direction to ablate");
  for (CLI::Option* strength :
       {trace_command->add_option("--strength", trace.strengths.strengths, "Share of it that is ablated, as for edit"),
        trace_command->add_option("--layer-strength", trace.strengths.layer_strengths, "LAYER=NUMBER, as for edit"),
        trace_command->add_option("--layers", trace.strengths.layers, "Ablate in these layers only, FIRST-LAST")}) {
    strength->needs("--ablate")->allow_extra_args(false);
  }
  CLI::Option* add = trace_command->add_option("--add", trace.add, "Direction to add");
  CLI::Option* layer = trace_command->add_option("--layer", trace.layer, "Block at whose input it is added");
  add->needs(layer);
  layer->needs(add);
  trace_command->add_option("--gemm", trace.gemm, "How products are computed; default: by the processor")
      ->check(CLI::IsMember({"plain", "packed", "widened", "widened-packed", "widened-blocks"}));

  bearing::worker::ProbeOptions probe;
  CLI::App* probe_command = app.add_subcommand("probe",
                                               "Project prompts on directions.\nExample: bearing-worker probe --model DIR "
                                               "--direction d.safetensors --prompts p.json --out FOLDER");
  AddProbeOptions(*probe_command, probe);

  bearing::edit::EditCommandOptions edit;
  CLI::App* edit_command = app.add_subcommand("edit",
                                              "Write a direction into weights.\nExample: bearing-worker edit --model DIR "
                                              "--direction direction.safetensors --out EDITED");
  bearing::edit::AddEditOptions(*edit_command, edit);
  edit.version = bearing::worker::kVersion;

  bearing::worker::SearchOptions search;
  CLI::App* search_command = app.add_subcommand(
      "search",
      "Tune what is removed of a run's direction.\nExample: bearing-worker search --run out/refusal --out out/search");
  bearing::worker::AddSearchOptions(*search_command, search);

  bearing::worker::CalibrateOptions calibrate;
  CLI::App* calibrate_command =
      app.add_subcommand("calibrate",
                         "Measure how fast this group is with a model's shapes, for `bearing plan`; prints a line of JSON.\n"
                         "Example: mpirun -n 2 bearing-worker calibrate --config MODEL");
  calibrate_command
      ->add_option("--config", calibrate.config, "config.json, or the model folder with it (its files are then read)")
      ->required()
      ->check(CLI::ExistingPath);
  calibrate_command->add_option("--dtype", calibrate.dtype, "Compute type")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  calibrate_command->add_option("--plan-ranks", calibrate.plan_ranks, "Slices of so many ranks (default: of this group)")
      ->check(CLI::Range(1, 1024));
  calibrate_command->add_option("--prefix-tokens", calibrate.prefix_tokens, "Tokens that typical prompts share")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  calibrate_command->add_option("--prompt-tokens", calibrate.prompt_tokens, "Tokens of their own")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  calibrate_command->add_option("--write-to", calibrate.write_to, "Time writing with a file in this folder")
      ->check(CLI::ExistingDirectory);

  CLI::App* check_command = app.add_subcommand("check",
                                               "Do the ranks of this group reach each other? Prints a line of JSON.\n"
                                               "Example: mpirun -n 2 bearing-worker check");

  std::string device = "auto";
  for (CLI::App* command : {serve_command, trace_command, probe_command, search_command, calibrate_command, check_command}) {
    command->add_option("--device", device, "Where to compute; auto = cuda where every rank has a device, else cpu")
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
        ->capture_default_str();
  }

  try {
    app.parse(argc, argv);
    if (*trace_command && trace.prompts.empty() && trace.token_ids.empty()) {
      throw CLI::RequiredError("--prompts or --token-ids");
    }
    if (*probe_command && probe.prompts.empty() && probe.token_ids.empty()) {
      throw CLI::RequiredError("--prompts or --token-ids");
    }
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  const auto comm = JoinGroup(bootstrap == "mpi", absl::Minutes(timeout_minutes));
  if (!comm.ok()) {
    std::fprintf(stderr, "bearing-worker: error: %s\n", comm.status().ToString().c_str());
    return absl::IsInvalidArgument(comm.status()) ? 2 : 1;
  }
  // The edit computes in host memory.
  if (*edit_command) {
    const bearing::edit::RankGroup ranks{(*comm)->rank(), (*comm)->size(), [&comm](const absl::Status& status) {
                                           return bearing::comm::AgreeOnStatus(**comm, status);
                                         }};
    const absl::Status edited = bearing::worker::EditAtAddress(
        ranks, edit, [&comm](const std::string& model, const std::string& staged, const bearing::edit::Basis& basis) {
          return bearing::worker::CheckEditedLogits(**comm, model, staged, basis);
        });
    // An exception on one rank leaves it out of step with the others.
    if (absl::IsInternal(edited) && (*comm)->size() > 1) (*comm)->Abort(std::string(edited.message()));
    return Finish(**comm, edited);
  }
  using bearing::worker::DeviceChoice;
  const auto placed = bearing::worker::PlaceGroup(bearing::worker::DeviceChoiceFromName(device).value_or(DeviceChoice::kAuto),
                                                  **comm, absl::Minutes(timeout_minutes));
  if (!placed.ok()) return Finish(**comm, placed.status());
  bearing::comm::Communicator& group = placed->on_device != nullptr ? *placed->on_device : **comm;
  if (*check_command) {
    return Finish(group, bearing::worker::RunGroupCheck(**comm, group, placed->name, placed->why_cpu));
  }
  if (*trace_command) return Finish(group, bearing::worker::RunTrace(group, trace));
  if (*search_command) return Finish(group, bearing::worker::RunSearch(group, search));
  if (*probe_command) return Finish(group, bearing::worker::RunProbe(group, probe));
  if (*calibrate_command) return Finish(group, bearing::worker::RunCalibrate(group, calibrate, placed->name));
  if (idle_seconds > 0) serve.exit_when_idle = absl::Seconds(idle_seconds);
  serve.security = bearing::rpc::WithEnvironment(serve.security);
  serve.device_name = placed->why_cpu.empty() ? placed->name : "cpu (" + placed->why_cpu + ")";
  return Finish(group, bearing::worker::Serve(group, serve));
}
