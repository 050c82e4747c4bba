// The manual page of the program, from the tree that --help is made of.
#ifndef BEARING_CLI_MAN_PAGE_H_
#define BEARING_CLI_MAN_PAGE_H_

#include <CLI/CLI.hpp>
#include <string>

namespace bearing::cli {

// Source for man(7) macros, one page with all commands. Of a footer, indented lines stay as they are.
std::string ManPage(const CLI::App& app);

}  // namespace bearing::cli

#endif  // BEARING_CLI_MAN_PAGE_H_
