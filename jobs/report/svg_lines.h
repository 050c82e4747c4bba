// A line chart over layers, as an inline SVG element. Stateless.
#ifndef BEARING_JOBS_REPORT_SVG_LINES_H_
#define BEARING_JOBS_REPORT_SVG_LINES_H_

#include <string>
#include <vector>

namespace bearing::jobs {

struct LineSeries {
  std::string name;            // Plain text, written at the end of the line.
  std::string css_class;       // "line-a", "line-b", "line-c" of the page's style.
  std::vector<double> values;  // By layer. On a logarithmic axis what is not above 0 is left out.
};

struct LineChart {
  std::string id;
  std::string title;
  std::string description;
  std::string y_label;
  bool logarithmic = true;  // false: linear, from 0 (or the least value, if below) to 1 (or the largest, if above).
  std::vector<LineSeries> series;
  int marked_layer = -1;  // Gets a vertical line; -1: none.
};

// Empty when no series has a value that can be drawn.
std::string RenderLines(const LineChart& chart);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_SVG_LINES_H_
