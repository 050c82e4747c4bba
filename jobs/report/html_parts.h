// Parts that several sections share. Stateless.
#ifndef BEARING_JOBS_REPORT_HTML_PARTS_H_
#define BEARING_JOBS_REPORT_HTML_PARTS_H_

#include <string>
#include <vector>

namespace bearing::jobs {

// A box that scrolls sideways by itself where its content is wider than the page, and that the keyboard reaches. `label` is
// plain text, `content` markup.
std::string ScrollBox(const std::string& label, const std::string& content);

enum class CellKind { kText, kNumber };

// A table in a scroll box, with a caption. The first column heads the rows, the others are of `kind`. `caption` is plain text;
// `columns` and `rows` are escaped already.
std::string HtmlTable(const std::string& caption, const std::vector<std::string>& columns,
                      const std::vector<std::vector<std::string>>& rows, CellKind kind);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_HTML_PARTS_H_
