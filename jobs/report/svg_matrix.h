// A matrix of numbers as an inline SVG heat map on the diverging scale of the page's style: orange above zero, blue below.
// Stateless.
#ifndef BEARING_JOBS_REPORT_SVG_MATRIX_H_
#define BEARING_JOBS_REPORT_SVG_MATRIX_H_

#include <string>
#include <vector>

namespace bearing::jobs {

struct MatrixMap {
  std::string id;  // Prefix of the element ids, unique in the page.
  std::string title;
  std::string description;
  std::string row_axis;                     // What rows and columns are, plain text: "head", "layer".
  std::string column_axis;                  // Columns are counted from 0 unless they have labels.
  std::vector<std::string> row_labels;      // Plain text; as many as rows.
  std::vector<std::string> column_labels;   // May be empty.
  std::vector<std::vector<double>> values;  // [row][column]; what is not finite is left blank.
  double scale = 0;                         // The value of the strongest colour; 0: the largest there is.
  bool visible_spaces = false;              // Row labels are texts of tokens.
};

// Empty without a value that can be drawn.
std::string RenderMatrix(const MatrixMap& map);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_SVG_MATRIX_H_
