// bearing-edit: a direction written into the weights of a checkpoint, by one process. It links neither libtorch nor MPI, whose
// start takes longer than the edit of a small model; `bearing-worker edit` is the same work for ranks on several machines, and
// with --check-logits.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "worker/edit/edit_command.h"
#include "worker/edit/thread_group.h"
#include "worker/edit_at_address.h"
#include "worker/exit_code.h"
#include "worker/version.h"

int main(int argc, char** argv) {
  CLI::App app{"Writes a direction into the weights of a model. `bearing edit` starts it."};
  app.set_version_flag("--version", bearing::worker::kVersion);
  bearing::edit::EditCommandOptions options;
  options.version = bearing::worker::kVersion;
  bearing::edit::AddEditOptions(app, options);
  int ranks = 1;
  app.add_option("--ranks", ranks, "Groups of threads that share the work")->check(CLI::Range(1, 1024))->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  const absl::Status edited = bearing::edit::RunThreadGroup(ranks, [&](const bearing::edit::RankGroup& group) -> absl::Status {
    if (options.check_logits) return absl::UnimplementedError("--check-logits runs the model: use bearing-worker edit");
    return bearing::worker::EditAtAddress(group, options);
  });
  if (!edited.ok()) std::fprintf(stderr, "bearing-edit: error: %s\n", std::string(edited.message()).c_str());
  return bearing::worker::ExitCode(edited);
}
