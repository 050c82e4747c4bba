// Shell completion scripts, made from the tree of commands and flags. Names of jobs and contexts they ask `bearing` for.
#ifndef BEARING_CLI_COMPLETION_H_
#define BEARING_CLI_COMPLETION_H_

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

namespace bearing::cli {

// Types (CLI::Option::type_name) of positional arguments that have names which the program can list.
inline constexpr char kJobType[] = "JOB";
inline constexpr char kContextType[] = "CONTEXT";

// For "bash", "zsh" or "fish".
std::string CompletionScript(const CLI::App& app, std::string_view shell);

}  // namespace bearing::cli

#endif  // BEARING_CLI_COMPLETION_H_
