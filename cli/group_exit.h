// How a worker group ended, from what mpirun said about it.
#ifndef BEARING_CLI_GROUP_EXIT_H_
#define BEARING_CLI_GROUP_EXIT_H_

#include <optional>
#include <string>
#include <vector>

namespace bearing::cli {

struct GroupExit {
  std::optional<int> rank;  // That ended first, where mpirun named it.
  int signal = 0;           // One of the two.
  int exit_status = 0;

  bool ok() const { return signal == 0 && exit_status == 0; }
  // "rank 1 was ended by signal 9", "exit status 70".
  std::string Text() const;
};

// `wait_status` is that of mpirun, `lines` the end of its log (of this run alone).
GroupExit ReadGroupExit(int wait_status, const std::vector<std::string>& lines);

}  // namespace bearing::cli

#endif  // BEARING_CLI_GROUP_EXIT_H_
