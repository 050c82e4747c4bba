// A child must not outlive its parent, even when that is killed: the program starts itself again under a hidden command that
// asks the kernel for a signal at its parent's death and then becomes the real program (the setting survives exec).
#ifndef BEARING_CLI_LAUNCHER_H_
#define BEARING_CLI_LAUNCHER_H_

#include <optional>
#include <string>
#include <vector>

namespace bearing::cli {

// `arguments` behind the launcher of this very program, whose main() must call RunLauncher first. For a child of this process:
// it is asked to end (SIGTERM) when this process dies.
std::vector<std::string> BehindLauncher(const std::vector<std::string>& arguments);

// The same for a program that another one starts, e.g. a rank of mpirun: it is killed when its parent dies.
std::vector<std::string> BehindKillLauncher(const std::vector<std::string>& arguments);

// Becomes the program when argv holds the hidden command. Returns only otherwise (nothing), or with the exit code of a failure.
std::optional<int> RunLauncher(int argc, char** argv);

}  // namespace bearing::cli

#endif  // BEARING_CLI_LAUNCHER_H_
