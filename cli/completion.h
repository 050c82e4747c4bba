// Shell completion scripts, made from the tree of commands and flags.
#ifndef BEARING_CLI_COMPLETION_H_
#define BEARING_CLI_COMPLETION_H_

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

namespace bearing::cli {

// For "bash", "zsh" or "fish".
std::string CompletionScript(const CLI::App& app, std::string_view shell);

}  // namespace bearing::cli

#endif  // BEARING_CLI_COMPLETION_H_
