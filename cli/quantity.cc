#include "cli/quantity.h"

#include <cmath>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace bearing::cli {
namespace {

// Three digits: "1.53", "15.3", "153".
std::string ThreeDigits(double value) {
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f", decimals, value);
}

std::string Scaled(double value, double step, const char* const* units, int num_units) {
  int unit = 0;
  while (unit + 1 < num_units && value >= step * 0.9995) {
    value /= step;
    ++unit;
  }
  if (unit == 0)
    return absl::StrCat(value == std::floor(value) ? absl::StrFormat("%.0f", value) : ThreeDigits(value), units[0]);
  return absl::StrCat(ThreeDigits(value), units[unit]);
}

}  // namespace

absl::StatusOr<double> ParseBytes(const std::string& text) {
  const auto bad = [&text] {
    return absl::InvalidArgumentError(absl::StrCat("not a size like 80GiB, 50GB or 512MiB: ", text));
  };
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !std::isfinite(number) || number <= 0) return bad();
  std::string unit(end);
  while (!unit.empty() && unit.front() == ' ') unit.erase(0, 1);
  if (unit.empty() || unit == "B") return number;
  const size_t power = std::string("KMGTP").find(unit[0]);
  if (power == std::string::npos) return bad();
  const std::string rest = unit.substr(1);
  if (rest != "iB" && rest != "B") return bad();
  return number * std::pow(rest == "iB" ? 1024.0 : 1000.0, static_cast<double>(power + 1));
}

std::string FormatBytes(double bytes) {
  static constexpr const char* kUnits[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
  return Scaled(bytes, 1024, kUnits, 6);
}

std::string FormatCount(double count) {
  static constexpr const char* kUnits[] = {"", " k", " M", " G", " T", " P", " E"};
  return Scaled(count, 1000, kUnits, 7);
}

std::string FormatDuration(double seconds) {
  if (seconds < 0.0005) return "0 s";
  if (seconds < 9.95) return absl::StrFormat("%.2g s", seconds);
  if (seconds < 99.5) return absl::StrFormat("%.0f s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return absl::StrCat(whole / 60, " min ", whole % 60, " s");
  if (whole < 48 * 3600) return absl::StrCat(whole / 3600, " h ", whole % 3600 / 60, " min");
  return absl::StrCat(whole / 86400, " d ", whole % 86400 / 3600, " h");
}

}  // namespace bearing::cli
