// The diverging colour scale of the heat maps: blue (on the good side of the threshold), neutral at it, orange (the bad side).
// Blue and orange stay apart for every common kind of colour blindness; steps are even in Oklab, a perceptual colour space.
#ifndef BEARING_JOBS_REPORT_COLOR_SCALE_H_
#define BEARING_JOBS_REPORT_COLOR_SCALE_H_

#include <string>

namespace bearing::jobs {

// Steps 0 (best) .. kColorSteps - 1 (worst); the middle one is the threshold.
inline constexpr int kColorSteps = 15;

// Step of a value that is `badness` past the threshold, -1 (best of the scale) .. 1 (worst); clamped.
int ColorStep(double badness);

// The CSS rules ".q0{fill:#...}" of all steps.
std::string ColorRules(bool dark);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_COLOR_SCALE_H_
