// `bearing schema`: the form of job files for editors and programs.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/job_schema.h"

namespace bearing::cli {

void AddSchemaCommand(CommandLine& line) {
  auto what = std::make_shared<std::string>();
  CLI::App* command = line.app.add_subcommand("schema", "Print a JSON Schema of job files, with what each field means");
  command->add_option("WHAT", *what, "job")->required()->check(CLI::IsMember({"job"}));
  command->footer(
      "Draft 2020-12, always as JSON. Editors that know YAML complete and check with it, for example after a first line\n"
      "`# yaml-language-server: $schema=job.schema.json`. Ranges and rules over several fields are left to `bearing "
      "validate`.\n\n"
      "Example:\n  bearing schema job > job.schema.json");
  command->callback([&line, what] {
    line.action = [what] {
      std::cout << JobSchema().dump(2) << '\n';
      return kExitOk;
    };
  });
}

}  // namespace bearing::cli
