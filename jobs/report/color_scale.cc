#include "jobs/report/color_scale.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_format.h"

namespace bearing::jobs {
namespace {

using Triple = std::array<double, 3>;
using Matrix = std::array<Triple, 3>;

// Björn Ottosson's Oklab, from linear sRGB and back.
constexpr Matrix kRgbToLms = {{{0.4122214708, 0.5363325363, 0.0514459929},
                               {0.2119034982, 0.6806995451, 0.1073969566},
                               {0.0883024619, 0.2817188376, 0.6299787005}}};
constexpr Matrix kLmsToLab = {{{0.2104542553, 0.7936177850, -0.0040720468},
                               {1.9779984951, -2.4285922050, 0.4505937099},
                               {0.0259040371, 0.7827717662, -0.8086757660}}};
constexpr Matrix kLabToLms = {
    {{1.0, 0.3963377774, 0.2158037573}, {1.0, -0.1055613458, -0.0638541728}, {1.0, -0.0894841775, -1.2914855480}}};
constexpr Matrix kLmsToRgb = {{{4.0767416621, -3.3077115913, 0.2309699292},
                               {-1.2684380046, 2.6097574011, -0.3413193965},
                               {-0.0041960863, -0.7034186147, 1.7076147010}}};

Triple Multiply(const Matrix& matrix, const Triple& vector) {
  Triple out = {};
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) out[i] += matrix[i][j] * vector[j];
  }
  return out;
}

Triple LabOf(uint32_t rgb) {
  Triple linear;
  for (size_t i = 0; i < 3; ++i) {
    const double c = static_cast<double>((rgb >> (16 - 8 * i)) & 0xFF) / 255;
    linear[i] = c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  }
  Triple lms = Multiply(kRgbToLms, linear);
  for (double& c : lms) c = std::cbrt(c);
  return Multiply(kLmsToLab, lms);
}

std::string HexOf(const Triple& lab) {
  Triple lms = Multiply(kLabToLms, lab);
  for (double& c : lms) c = c * c * c;
  const Triple linear = Multiply(kLmsToRgb, lms);
  std::string hex = "#";
  for (const double c : linear) {
    const double bounded = std::clamp(c, 0.0, 1.0);
    const double gamma = bounded <= 0.0031308 ? 12.92 * bounded : 1.055 * std::pow(bounded, 1 / 2.4) - 0.055;
    hex += absl::StrFormat("%02x", static_cast<int>(std::lround(255 * gamma)));
  }
  return hex;
}

struct Ends {
  uint32_t good;
  uint32_t neutral;
  uint32_t bad;
};

}  // namespace

int ColorStep(double badness) {
  const double at = (std::clamp(badness, -1.0, 1.0) + 1) / 2 * (kColorSteps - 1);
  const int step = static_cast<int>(std::lround(at));
  constexpr int kMiddle = kColorSteps / 2;
  // What is past the threshold must look so, however little.
  if (step == kMiddle && badness > 0) return kMiddle + 1;
  if (step == kMiddle && badness < 0) return kMiddle - 1;
  return step;
}

std::string ColorRules(bool dark) {
  const Ends ends = dark ? Ends{0x7ab8ff, 0x2a313b, 0xffa057} : Ends{0x0a4f9e, 0xeef0f2, 0xb44a06};
  const Triple good = LabOf(ends.good);
  const Triple neutral = LabOf(ends.neutral);
  const Triple bad = LabOf(ends.bad);
  std::string rules;
  for (int step = 0; step < kColorSteps; ++step) {
    const double at = 2.0 * step / (kColorSteps - 1) - 1;
    const Triple& end = at < 0 ? good : bad;
    Triple mixed;
    for (size_t i = 0; i < 3; ++i) mixed[i] = neutral[i] + std::fabs(at) * (end[i] - neutral[i]);
    rules += absl::StrFormat(".q%d{fill:%s}", step, HexOf(mixed));
  }
  return rules;
}

}  // namespace bearing::jobs
