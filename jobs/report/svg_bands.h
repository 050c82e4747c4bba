// Curves over layers with bands around them (a set's mean, and the range of most of its values), as an inline SVG element.
// Stateless.
#ifndef BEARING_JOBS_REPORT_SVG_BANDS_H_
#define BEARING_JOBS_REPORT_SVG_BANDS_H_

#include <string>
#include <vector>

namespace bearing::jobs {

struct BandCurve {
  std::string name;       // Plain text.
  std::string css_class;  // "line-a", "line-b", "line-c" of the page's style.
  std::vector<double> middle;
  std::vector<double> low, high;  // As long as `middle`, or empty.
};

struct BandChart {
  std::string id;
  std::string title;
  std::string description;
  std::string y_label;
  std::vector<BandCurve> curves;
  int marked_layer = -1;  // Gets a vertical line; -1: none.
};

// The band's fill follows from the line's class (BandStyle).
std::string RenderBands(const BandChart& chart);

// Rules of the page's style for the bands.
std::string BandStyle();

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_SVG_BANDS_H_
