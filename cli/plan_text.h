// A plan for people. The first lines say what takes longest and whether it fits.
#ifndef BEARING_CLI_PLAN_TEXT_H_
#define BEARING_CLI_PLAN_TEXT_H_

#include <string>
#include <vector>

#include "jobs/plan/machine.h"
#include "jobs/plan/plan.h"
#include "jobs/plan/workload.h"

namespace bearing::cli {

std::string FormatPlan(const jobs::Plan& plan, const jobs::Workload& workload, const jobs::Machine& machine);

// The same job on several numbers of ranks, one a line. `refused`: ranks that the model cannot be cut into, and why.
struct RefusedRanks {
  int64_t ranks = 0;
  std::string why;
};
std::string FormatScaling(const std::vector<jobs::Plan>& plans, const std::vector<RefusedRanks>& refused,
                          const jobs::Workload& workload, const jobs::Machine& machine);

}  // namespace bearing::cli

#endif  // BEARING_CLI_PLAN_TEXT_H_
