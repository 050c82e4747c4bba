// Checks that start a small group of ranks, as a job would.
#ifndef BEARING_CLI_DOCTOR_GROUP_CHECKS_H_
#define BEARING_CLI_DOCTOR_GROUP_CHECKS_H_

#include <string>
#include <vector>

#include "cli/doctor/finding.h"

namespace bearing::cli {

struct GroupOptions {
  int ranks = 2;
  std::string device = "auto";  // "auto", "cpu", "cuda".
};

// mpirun, and `bearing-worker check` on the ranks: they are started, reach each other, add up rightly in memory and on their
// devices (NCCL). Findings "mpirun", "ranks", "device" and "memory". Takes some seconds, two minutes at the most.
std::vector<Finding> CheckGroup(const GroupOptions& options);

// The findings of the line of JSON that `bearing-worker check` printed (worker/group_check.h).
std::vector<Finding> ReadGroupCheck(const std::string& line, const GroupOptions& options);

}  // namespace bearing::cli

#endif  // BEARING_CLI_DOCTOR_GROUP_CHECKS_H_
