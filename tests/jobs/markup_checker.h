// A strict reader of the markup that the report writes: every element is closed in order, attributes are quoted and given once,
// ids are unique. It knows the void elements of HTML; anything else must be well-formed as in XML.
#ifndef BEARING_TESTS_JOBS_MARKUP_CHECKER_H_
#define BEARING_TESTS_JOBS_MARKUP_CHECKER_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace bearing::jobs {

struct Element {
  std::string name;
  std::map<std::string, std::string> attributes;
  std::vector<std::string> ancestors;  // Outermost first.
};

struct Markup {
  std::string error;  // Empty when well-formed.
  std::vector<Element> elements;

  // Elements of that name whose class list contains `css_class` ("" = any).
  std::vector<const Element*> Find(std::string_view name, std::string_view css_class = "") const;
};

Markup ReadMarkup(std::string_view text);

}  // namespace bearing::jobs

#endif  // BEARING_TESTS_JOBS_MARKUP_CHECKER_H_
