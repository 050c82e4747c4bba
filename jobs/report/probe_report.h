// What `bearing probe` has measured, as one self-contained page (inline CSS and SVG, no scripts, no requests) and as JSON
// (docs/formats.md). The numbers are explained in worker/steer/probe.h. Pure functions.
#ifndef BEARING_JOBS_REPORT_PROBE_REPORT_H_
#define BEARING_JOBS_REPORT_PROBE_REPORT_H_

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace bearing::jobs {

struct ProbeReport {
  // Over the prompts of a set, layer by layer.
  struct Curve {
    std::vector<double> mean, q10, q25, median, q75, q90;
  };

  struct Direction {
    std::string name;
    int layer = -1;  // At whose input it was read; -1: not known.
    std::map<std::string, std::string> metadata;
    std::string sha256;  // Of its file.
  };

  // Of one direction on one set.
  struct Measured {
    Curve projection, cosine;                // [L + 1]
    double embedding = 0;                    // Means over the prompts from here on.
    std::vector<double> attention, mlp;      // [L]
    std::vector<std::vector<double>> heads;  // [L][H]
  };

  // One of the first prompts, token by token.
  struct TokenMap {
    int64_t prompt = 0;
    std::vector<std::string> tokens;
    std::vector<std::vector<std::vector<double>>> cosine;  // [direction][token][layer]
  };

  struct Set {
    std::string label;  // File, and what was appended; no folder of this machine.
    std::string suffix;
    int64_t prompts = 0;
    std::vector<double> norm;  // Mean |x|, [L + 1]
    std::vector<Measured> directions;
    std::vector<TokenMap> tokens;
  };

  std::string version;
  std::string created;  // RFC 3339 UTC.
  std::string model_name;
  std::string model_digest;
  std::string dtype;
  int num_layers = 0;
  int num_heads = 0;
  std::vector<Direction> directions;
  std::vector<Set> sets;  // One or two.
  // Largest |r . x_L - sum of the contributions| / |x_L| over all prompts: rounding, if all is well.
  double largest_remainder = 0;
};

nlohmann::json ProbeJson(const ProbeReport& report);
std::string RenderProbeHtml(const ProbeReport& report);

// A few lines for the terminal.
std::string ProbeSummary(const ProbeReport& report);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_REPORT_PROBE_REPORT_H_
