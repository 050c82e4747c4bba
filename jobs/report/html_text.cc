#include "jobs/report/html_text.h"

#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "jobs/utf8.h"

namespace bearing::jobs {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

std::string WithTrueMinus(const std::string& number) {
  return !number.empty() && number.front() == '-' ? "−" + number.substr(1) : number;
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : ReplaceInvalidUtf8(text)) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F) {
          out += kReplacement;
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string VisibleToken(std::string_view token) {
  const std::string visible = absl::StrReplaceAll(std::string(token), {{"\r", "␍"}, {"\n", "⏎"}, {"\t", "⇥"}, {" ", "␣"}});
  return visible.empty() ? "∅" : EscapeHtml(visible);
}

std::string FormatFixed(double value, int decimals) {
  if (!std::isfinite(value)) return "n/a";
  std::string text = absl::StrFormat("%.*f", decimals, value);
  // A small negative number must not read "-0.00".
  if (text.find_first_not_of("-0.") == std::string::npos && text.front() == '-') text.erase(0, 1);
  return WithTrueMinus(text);
}

std::string FormatShort(double value) {
  if (!std::isfinite(value)) return "n/a";
  const bool is_readable_whole = std::fabs(value) >= 999.5 && std::fabs(value) < 999999.5;
  return WithTrueMinus(is_readable_whole ? absl::StrFormat("%.0f", value) : absl::StrFormat("%.3g", value));
}

std::string FormatPercent(double share) { return FormatFixed(100 * share, 1) + " %"; }

std::string FormatSeconds(double seconds) {
  if (!std::isfinite(seconds)) return "n/a";
  if (seconds < 10) return absl::StrFormat("%.2f s", seconds);
  if (seconds < 100) return absl::StrFormat("%.1f s", seconds);
  const auto whole = std::llround(seconds);
  if (whole < 3600) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  return absl::StrFormat("%d h %02d min", whole / 3600, whole % 3600 / 60);
}

std::string Coordinate(double value) { return absl::StrFormat("%.1f", value); }

}  // namespace bearing::jobs
