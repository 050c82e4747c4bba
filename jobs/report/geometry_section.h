// How far the two sets of prompts lie apart, layer by layer: curves, projections at one layer, principal components.
#ifndef BEARING_JOBS_REPORT_GEOMETRY_SECTION_H_
#define BEARING_JOBS_REPORT_GEOMETRY_SECTION_H_

#include <string>
#include <vector>

#include "jobs/report/report.h"

namespace bearing::jobs {

// Cosines between the mean differences of layers at the chosen position, and of positions at the chosen layer; null without
// data or choice. They point into `data`.
struct ChosenCosines {
  const std::vector<std::vector<double>>* layers = nullptr;
  const std::vector<std::vector<double>>* positions = nullptr;
};
ChosenCosines CosinesOfChosen(const ReportData& data);

// Empty without data.
std::string GeometrySection(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_GEOMETRY_SECTION_H_
