// What became of a job, in a few lines.
#ifndef BEARING_CLI_SUMMARY_H_
#define BEARING_CLI_SUMMARY_H_

#include <string>

#include "bearing/v1/job.pb.h"

namespace bearing::cli {

// The chosen direction, its scores, how often the concept shows before and after, and where report and checkpoint are.
std::string ResultTable(const bearing::v1::Job& job);

// "select: NO_CANDIDATE: message"; empty when the job has no error.
std::string ErrorText(const bearing::v1::Job& job);

}  // namespace bearing::cli

#endif  // BEARING_CLI_SUMMARY_H_
