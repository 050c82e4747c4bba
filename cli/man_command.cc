// `bearing man`: the manual page.
#include <iostream>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/man_page.h"

namespace bearing::cli {

void AddManCommand(CommandLine& line) {
  CLI::App* command = line.app.add_subcommand("man", "Print the manual page, with all commands");
  command->footer("Example:\n  bearing man | man -l -\n  bearing man > /usr/local/share/man/man1/bearing.1");
  command->callback([&line] {
    line.action = [&line] {
      std::cout << ManPage(line.app);
      return kExitOk;
    };
  });
}

}  // namespace bearing::cli
