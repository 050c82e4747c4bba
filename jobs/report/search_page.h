// search.html: the front of a search as a table and a plot. Self-contained, without scripts. Stateless.
#ifndef BEARING_JOBS_REPORT_SEARCH_PAGE_H_
#define BEARING_JOBS_REPORT_SEARCH_PAGE_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "jobs/report/report.h"

namespace bearing::jobs {

// The plot alone, an inline SVG: KL against the concept's probability of every completed trial, the points marked. Empty when
// fewer than two trials have both.
std::string RenderSearchPlot(const nlohmann::json& search);

// The page of a document as `bearing search` writes it to search.json.
std::string RenderSearchPage(const nlohmann::json& search);

// The same as a section of a run's report, and its numbers; nothing where the run has no search.
std::string SearchSection(const ReportData& data);
nlohmann::ordered_json SearchJson(const ReportData& data);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_SEARCH_PAGE_H_
