// search.html: the front of a search as a table and a plot. Self-contained, without scripts. Stateless.
#ifndef BEARING_JOBS_REPORT_SEARCH_PAGE_H_
#define BEARING_JOBS_REPORT_SEARCH_PAGE_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace bearing::jobs {

// The plot alone, an inline SVG: KL against the concept's probability of every completed trial, the points marked. Empty when
// fewer than two trials have both.
std::string RenderSearchPlot(const nlohmann::json& search);

// The page of a document as `bearing search` writes it to search.json.
std::string RenderSearchPage(const nlohmann::json& search);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_SEARCH_PAGE_H_
