// `bearing validate`: check a job file on this machine.
#include <iostream>
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/spec_source.h"

namespace bearing::cli {
namespace {

int Validate(const SpecOptions& options, const Globals& globals) {
  const absl::StatusOr<bearing::v1::JobSpec> spec = LoadSpec(options);
  if (!spec.ok()) return Fail(spec.status(), kExitInvalid);
  if (const absl::Status checked = CheckFiles(*spec, spec->ranks()); !checked.ok()) return Fail(checked, kExitInvalid);
  std::cerr << options.file << ": valid\n";
  const OutputFormat format = ParseOutputFormat(globals.output);
  if (format == OutputFormat::kName) std::cout << spec->name() << '\n';
  if (format == OutputFormat::kJson || format == OutputFormat::kYaml) {
    const absl::StatusOr<std::string> text = Encode(*spec, format);
    if (!text.ok()) return Fail(text.status());
    std::cout << *text;
  }
  return kExitOk;
}

}  // namespace

void AddValidateCommand(CommandLine& line) {
  auto options = std::make_shared<SpecOptions>();
  CLI::App* command = line.app.add_subcommand("validate", "Check a job file, its prompts and its model on this machine");
  command->add_option("-f,--file", options->file, "Job file (YAML, JSON or .textproto); - reads YAML from standard input")
      ->required();
  command->add_option("--set", options->sets, "Set a field of the job, e.g. select.kl_max=0.2 (repeatable)")
      ->allow_extra_args(false);
  command->footer(
      "Needs no server and reads no weights. With -o json or -o yaml, prints the job with every default filled in.\n\n"
      "Example:\n  bearing validate -f examples/refusal.yaml -o yaml");
  command->callback([&line, options] { line.action = [&line, options] { return Validate(*options, line.globals); }; });
}

}  // namespace bearing::cli
