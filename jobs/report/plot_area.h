// The frame of a chart: maps numbers to coordinates, linear or logarithmic, with round ticks. A value type.
#ifndef BEARING_JOBS_REPORT_PLOT_AREA_H_
#define BEARING_JOBS_REPORT_PLOT_AREA_H_

#include <string>
#include <string_view>
#include <vector>

namespace bearing::jobs {

class PlotAxis {
 public:
  // Maps [low, high] onto [from, to] pixels; the range is widened a little when it is empty. A logarithmic axis needs low > 0.
  PlotAxis(double low, double high, double from, double to, bool logarithmic);
  double At(double value) const;
  bool Contains(double value) const { return value >= low_ && value <= high_; }
  // Round values inside the range: 1, 2, 5 times a power of ten.
  std::vector<double> Ticks() const;

 private:
  double low_;
  double high_;
  double from_;
  double to_;
  bool logarithmic_;
};

// <text> at a point; `escaped` is safe already.
std::string SvgText(double x, double y, std::string_view css_class, std::string_view escaped);

// <path> of straight lines ("M1 2L3 4").
std::string SvgPath(std::string_view data, std::string_view css_class);

// <svg role="img"> of a chart with its title and description.
std::string SvgChart(std::string_view id, std::string_view title, std::string_view description, int width, int height,
                     std::string_view content);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_PLOT_AREA_H_
