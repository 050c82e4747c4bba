// The `costs` section of a job: its files, defaults and checks, for the functions of job_spec.h. Stateless.
#ifndef BEARING_JOBS_COST_FIELDS_H_
#define BEARING_JOBS_COST_FIELDS_H_

#include <string>
#include <vector>

#include "bearing/v1/job.pb.h"
#include "jobs/job_spec.h"

namespace bearing::jobs {

// A file that the section names.
struct CostFile {
  std::string field;            // "costs.texts[0].file"
  std::string* file = nullptr;  // In the message.
  std::string name;
  int count = 0;
};
std::vector<CostFile> CostFiles(bearing::v1::JobSpec& spec);

// Is there anything to measure?
bool MeasuresCosts(const bearing::v1::JobSpec& spec);

// The parts of ApplyDefaults, ValidateFields and ValidateFiles. All three do nothing without the section.
void ApplyCostDefaults(bearing::v1::JobSpec& spec);
std::vector<FieldViolation> ValidateCostFields(const bearing::v1::JobSpec& spec);
std::vector<FieldViolation> ValidateCostFiles(const bearing::v1::JobSpec& spec);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_COST_FIELDS_H_
