#include <nlohmann/json.hpp>

#include "jobs/report/run_report.h"
#include "sharding/status_macros.h"
#include "worker/stages/stages.h"

namespace bearing::worker {
namespace {

absl::Status WriteReport(const JobContext& context) {
  BEARING_ASSIGN_OR_RETURN(const nlohmann::json provenance, Provenance(context));
  BEARING_ASSIGN_OR_RETURN(const jobs::ReportData data, jobs::ReadReport(context.output->path(), provenance));
  BEARING_RETURN_IF_ERROR(jobs::WriteFileAtomically(context.output->PathOf("report.json"), jobs::RenderReportJson(data)));
  return jobs::WriteFileAtomically(context.output->PathOf("report.html"), jobs::RenderReportHtml(data));
}

}  // namespace

absl::StatusOr<StageFiles> RunReport(JobContext& context) {
  BEARING_RETURN_IF_ERROR(context.OnRank0([&] { return WriteReport(context); }));
  return StageFiles{"report.html", "report.json"};
}

}  // namespace bearing::worker
