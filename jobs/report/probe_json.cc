#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "jobs/report/probe_report.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

using Json = nlohmann::json;

Json CurveJson(const ProbeReport::Curve& curve) {
  return {{"mean", curve.mean},     {"q10", curve.q10}, {"q25", curve.q25},
          {"median", curve.median}, {"q75", curve.q75}, {"q90", curve.q90}};
}

std::vector<double> Minus(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> difference = a;
  for (size_t i = 0; i < difference.size(); ++i) difference[i] -= b[i];
  return difference;
}

// Second set minus first.
Json DifferenceJson(const ProbeReport::Measured& first, const ProbeReport::Measured& second) {
  Json heads = Json::array();
  for (size_t layer = 0; layer < first.heads.size(); ++layer) heads.push_back(Minus(second.heads[layer], first.heads[layer]));
  return {{"projection", Minus(second.projection.mean, first.projection.mean)},
          {"cosine", Minus(second.cosine.mean, first.cosine.mean)},
          {"embedding", second.embedding - first.embedding},
          {"attention", Minus(second.attention, first.attention)},
          {"mlp", Minus(second.mlp, first.mlp)},
          {"heads", std::move(heads)}};
}

}  // namespace

Json ProbeJson(const ProbeReport& report) {
  Json directions = Json::array();
  for (const ProbeReport::Direction& direction : report.directions) {
    directions.push_back({{"name", direction.name}, {"metadata", direction.metadata}, {"sha256", direction.sha256}});
  }
  Json sets = Json::array();
  for (const ProbeReport::Set& set : report.sets) {
    Json measured = Json::array();
    for (const ProbeReport::Measured& of : set.directions) {
      measured.push_back({{"projection", CurveJson(of.projection)},
                          {"cosine", CurveJson(of.cosine)},
                          {"embedding", of.embedding},
                          {"attention", of.attention},
                          {"mlp", of.mlp},
                          {"heads", of.heads}});
    }
    Json prompts = Json::array();
    for (const ProbeReport::TokenMap& map : set.tokens) prompts.push_back({{"prompt", map.prompt}, {"tokens", map.tokens}});
    sets.push_back({{"label", set.label},
                    {"prompts", set.prompts},
                    {"norm", set.norm},
                    {"directions", std::move(measured)},
                    {"token_texts", std::move(prompts)}});
    if (!set.suffix.empty()) sets.back()["suffix"] = set.suffix;
  }
  Json out = {{"format", "bearing/probe/v1"},  {"bearing_version", report.version},
              {"created", report.created},     {"model", {{"name", report.model_name}, {"digest", report.model_digest}}},
              {"dtype", report.dtype},         {"num_layers", report.num_layers},
              {"num_heads", report.num_heads}, {"directions", std::move(directions)},
              {"sets", std::move(sets)},       {"largest_remainder", report.largest_remainder}};
  if (report.sets.size() == 2) {
    out["difference"] = Json::array();
    for (size_t k = 0; k < report.directions.size(); ++k) {
      out["difference"].push_back(DifferenceJson(report.sets[0].directions[k], report.sets[1].directions[k]));
    }
  }
  return out;
}

std::string ProbeSummary(const ProbeReport& report) {
  std::string out;
  for (size_t k = 0; k < report.directions.size(); ++k) {
    const ProbeReport::Direction& direction = report.directions[k];
    const auto layer = static_cast<size_t>(direction.layer >= 0 ? direction.layer : report.num_layers);
    out += Concat(direction.name, ", at the input of ",
                  direction.layer >= 0 ? Concat("layer ", direction.layer) : std::string("the final norm"), ":\n");
    for (const ProbeReport::Set& set : report.sets) {
      const ProbeReport::Measured& of = set.directions[k];
      out += absl::StrFormat("  %s, %d prompts: projection %.3f (10 to 90 %%: %.3f to %.3f), cosine %.3f\n", set.label,
                             set.prompts, of.projection.mean[layer], of.projection.q10[layer], of.projection.q90[layer],
                             of.cosine.mean[layer]);
    }
  }
  return out;
}

}  // namespace bearing::jobs
