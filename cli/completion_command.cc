// `bearing completion`: a script that makes the shell complete commands and flags.
#include <iostream>
#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/completion.h"
#include "cli/exit_code.h"

namespace bearing::cli {

void AddCompletionCommand(CommandLine& line) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = line.app.add_subcommand("completion", "Print a completion script for a shell");
  command->add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(
      "Example:\n  source <(bearing completion bash)\n"
      "  bearing completion fish > ~/.config/fish/completions/bearing.fish");
  command->callback([&line, shell] {
    line.action = [&line, shell] {
      std::cout << CompletionScript(line.app, *shell);
      return kExitOk;
    };
  });
}

}  // namespace bearing::cli
