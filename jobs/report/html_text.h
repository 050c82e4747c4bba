// Text for HTML and SVG: escaping and number formats. Stateless.
#ifndef BEARING_JOBS_REPORT_HTML_TEXT_H_
#define BEARING_JOBS_REPORT_HTML_TEXT_H_

#include <string>
#include <string_view>

namespace bearing::jobs {

// Safe as element content and as a quoted attribute value, in HTML and in XML: markup is escaped, control characters (but line
// breaks and tabs) and bytes that are not UTF-8 become U+FFFD.
std::string EscapeHtml(std::string_view text);

// The text of a token with white space made visible ("\n" as ⏎), escaped.
std::string VisibleToken(std::string_view token);

// Fixed decimals, a true minus sign, "n/a" for what is not finite.
std::string FormatFixed(double value, int decimals);

// Three significant digits, but whole numbers from 1000 to a million as they are; for axes and counts of any size.
std::string FormatShort(double value);

// "93.8 %"
std::string FormatPercent(double share);

// Seconds as "0.42 s", "12.3 s", "3 min 05 s".
std::string FormatSeconds(double seconds);

// A coordinate: one decimal, plain ASCII.
std::string Coordinate(double value);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_HTML_TEXT_H_
