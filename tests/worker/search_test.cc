// The space that a search moves in, its journal, its choice of points, and the one definition of strengths: an edited model
// equals the intervention of the same spec.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "tests/sharding/temp_folder.h"
#include "tests/worker/tiny_model.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/edit_checkpoint.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/strength_flags.h"
#include "worker/intervention_of.h"
#include "worker/search/search_front.h"
#include "worker/search/search_journal.h"
#include "worker/search/search_space.h"

namespace bearing::worker {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::RunTinyTrace;
using testing::TempFolder;
using testing::TinyPath;
using testing::TraceResult;
using testing::WithDecoder;

constexpr int64_t kLayers = 9;
constexpr int64_t kWidth = 12;

SearchSpace MakeSpace(at::Tensor* difference = nullptr, at::Tensor* mean = nullptr) {
  at::manual_seed(4);
  at::Tensor d = at::randn({kLayers, kWidth}, at::kDouble);
  d[0].zero_();
  const at::Tensor m = at::randn({kLayers, kWidth}, at::kDouble);
  if (difference != nullptr) *difference = d;
  if (mean != nullptr) *mean = m;
  absl::StatusOr<SearchSpace> space = SearchSpace::Make(d, m, 0, kLayers - 1);
  EXPECT_TRUE(space.ok()) << space.status();
  return *std::move(space);
}

at::Tensor Vector(const std::vector<double>& values) { return at::tensor(values, at::kDouble); }
at::Tensor Unit(const at::Tensor& vector) { return vector / at::norm(vector); }

TEST(SearchSpaceTest, PointsAndParameters) {
  const SearchSpace space = MakeSpace();
  EXPECT_EQ(space.dimension(), 10u);
  EXPECT_EQ(space.first_layer(), 1) << "layer 0 has no direction";
  const steer::Point point = {0.25, 0.5, 0.75, 0.5, 1.0, 0.0, 1.0, 0.5, 0.25, 1.0};
  const SearchParameters parameters = space.Decode(point);
  EXPECT_DOUBLE_EQ(parameters.layer, 1 + 0.25 * 7);
  EXPECT_DOUBLE_EQ(parameters.projected, 0.5);
  EXPECT_DOUBLE_EQ(parameters.embedding, 0.75);
  EXPECT_DOUBLE_EQ(parameters.attention, 0.75);
  EXPECT_DOUBLE_EQ(parameters.mlp, 1.5);
  const steer::Point back = space.Encode(parameters);
  for (size_t i = 0; i < point.size(); ++i) EXPECT_NEAR(back[i], point[i], 1e-15);
  // Knots at layers 0, 2, 4, 6 and 8.
  EXPECT_THAT(space.LayerStrengths(parameters), ElementsAre(0.0, 0.5, 1.0, 0.75, 0.5, 0.375, 0.25, 0.625, 1.0));
}

TEST(SearchSpaceTest, DirectionsAreInterpolatedAndProjected) {
  at::Tensor difference, mean;
  const SearchSpace space = MakeSpace(&difference, &mean);
  SearchParameters parameters = space.Decode(steer::Point(space.dimension(), 1.0));
  parameters.layer = 3.25;
  parameters.projected = 0;
  const auto direction = [&] {
    const auto spec = space.SpecOf(parameters);
    EXPECT_TRUE(spec.ok()) << spec.status();
    return Unit(Vector(spec->directions.at(0)));
  };
  const at::Tensor between = Unit(0.75 * Unit(difference[3]) + 0.25 * Unit(difference[4]));
  EXPECT_LT(at::norm(direction() - between).item<double>(), 1e-12);
  parameters.layer = 3;
  EXPECT_LT(at::norm(direction() - Unit(difference[3])).item<double>(), 1e-12);
  // Whole: what `bearing edit --negative-mean` removes.
  parameters.projected = 1;
  const at::Tensor m = mean[3];
  const at::Tensor rest = difference[3] - m * (at::dot(difference[3], m) / at::dot(m, m));
  EXPECT_LT(at::norm(direction() - Unit(rest)).item<double>(), 1e-12);
  parameters.projected = 0.5;
  const at::Tensor unit = Unit(difference[3]);
  const at::Tensor half = unit - 0.5 * m * (at::dot(unit, m) / at::dot(m, m));
  EXPECT_LT(at::norm(direction() - Unit(half)).item<double>(), 1e-12);
}

TEST(SearchSpaceTest, StartsFromTheWholeRemoval) {
  at::Tensor difference;
  const SearchSpace space = MakeSpace(&difference);
  const std::vector<steer::Point> start = space.Start(5);
  const auto spec = space.SpecOf(space.Decode(start.at(0)));
  ASSERT_TRUE(spec.ok());
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (const auto component : {sharding::Component::kAttention, sharding::Component::kMlp}) {
      EXPECT_NEAR(spec->StrengthOf(component, layer), 1.0, 1e-15);
    }
  }
  EXPECT_NEAR(spec->StrengthOf(sharding::Component::kEmbedding, -1), 1.0, 1e-15);
  EXPECT_LT(at::norm(Unit(Vector(spec->directions[0])) - Unit(difference[5])).item<double>(), 1e-12);
  EXPECT_EQ(space.SpecOf(space.Decode(start.at(2)))->StrengthOf(sharding::Component::kEmbedding, -1), 0);
}

TEST(SearchSpaceTest, RangesThatHaveNoDirectionAreRefused) {
  at::Tensor difference, mean;
  MakeSpace(&difference, &mean);
  EXPECT_THAT(std::string(SearchSpace::Make(difference, mean, 0, kLayers).status().message()), HasSubstr("layers=9"));
  EXPECT_EQ(SearchSpace::Make(difference, mean, 0, 0).status().code(), absl::StatusCode::kFailedPrecondition);
  const auto one = SearchSpace::Make(difference, mean, 4, 4);
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(one->Decode(one->Start(4)[0]).layer, 4);
  // A layer without a direction ends the range.
  difference[6].zero_();
  EXPECT_EQ(SearchSpace::Make(difference, mean, 2, kLayers - 1)->last_layer(), 5);
}

TEST(SearchJournalTest, GoesOnWhereItWasCutOff) {
  TempFolder folder;
  const std::string path = folder / "trials.jsonl";
  const json key = {{"seed", 1}, {"model_digest", "abc"}};
  {
    auto journal = SearchJournal::Open(path, key);
    ASSERT_TRUE(journal.ok()) << journal.status();
    EXPECT_EQ(journal->Trial(0), nullptr);
    ASSERT_TRUE(journal->Append(std::vector<json>{{{"trial", 0}, {"x", 0.1}}, {{"trial", 1}}}).ok());
    ASSERT_TRUE(journal->Append(std::vector<json>{{{"completions_of", -1}, {"shown", 3}}}).ok());
  }
  std::ofstream(path, std::ios::app) << R"({"trial": 2, "poi)";
  {
    auto journal = SearchJournal::Open(path, key);
    ASSERT_TRUE(journal.ok()) << journal.status();
    ASSERT_NE(journal->Trial(0), nullptr);
    EXPECT_EQ(journal->Trial(0)->at("x").get<double>(), 0.1);
    EXPECT_NE(journal->Trial(1), nullptr);
    EXPECT_EQ(journal->Trial(2), nullptr);
    EXPECT_EQ(journal->Completions(-1)->at("shown"), 3);
    ASSERT_TRUE(journal->Append(std::vector<json>{{{"trial", 2}}}).ok());
  }
  EXPECT_NE(SearchJournal::Open(path, key)->Trial(2), nullptr);

  const absl::Status other = SearchJournal::Open(path, {{"seed", 2}, {"model_digest", "abc"}}).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(other.message()), HasSubstr("differs in seed: 1 there, 2 here"));
  std::ofstream(path, std::ios::app) << "not json\n{\"trial\": 3}\n";
  EXPECT_THAT(std::string(SearchJournal::Open(path, key).status().message()), HasSubstr("line=6"));
}

TEST(SearchFrontTest, TrialsSurviveTheJournal) {
  Trial trial;
  trial.generation = 3;
  trial.point = {0.1, 1.0 / 3.0};
  trial.screen = steer::TrialScore{0.1, -2.5, 1.0 / 7.0, 8, 9};
  const auto back = TrialOf(json::parse(TrialJson(5, trial).dump()));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->point, trial.point);
  EXPECT_EQ(back->screen->kl, trial.screen->kl);
  EXPECT_EQ(back->screen->negatives, 9);
  EXPECT_FALSE(back->score.has_value());
  trial.score = steer::TrialScore{NAN, -2.5, 0.1, 8, 9};
  EXPECT_FALSE(ObjectivesOf(TrialOf(json::parse(TrialJson(5, trial).dump()))->score).has_value());
  EXPECT_FALSE(TrialOf(json{{"trial", 1}}).ok());
}

TEST(SearchFrontTest, PointsAreTheFrontAndTheRunsOwnDirection) {
  const auto trial = [](double probability, double kl) {
    Trial made;
    made.score = steer::TrialScore{probability, 0, kl, 4, 4};
    return made;
  };
  std::vector<Trial> trials = {trial(0.5, 0.5), trial(0.3, 0.1),  trial(0.1, 0.3),
                               trial(0.4, 0.2), trial(0.01, 5.0), trial(0.95, 0.01)};
  trials.emplace_back();  // Without a score.
  const steer::Objectives reference = ReferenceOf({.probability = 0.9}, 1.0);
  EXPECT_THAT(ChoosePoints(trials, 8, reference), ElementsAre(1, 2, 0));
  EXPECT_THAT(ChoosePoints(trials, 1, reference), ::testing::SizeIs(2));
  trials[0] = Trial();
  EXPECT_THAT(ChoosePoints(trials, 8, reference), ElementsAre(1, 2));
  EXPECT_TRUE(ChoosePoints({Trial()}, 8, reference).empty());
}

struct StrengthCase {
  std::string model;
  int ranks;
  int directions;
  edit::StrengthFlags flags;
};

class OneDefinitionTest : public ::testing::TestWithParam<StrengthCase> {};

// Weights edited with these strengths = the original weights under the intervention with the same.
TEST_P(OneDefinitionTest, EditedWeightsEqualTheIntervention) {
  const StrengthCase& c = GetParam();
  TempFolder folder;
  const std::string out = folder / "edited";
  const auto source = sharding::WeightFiles::Open(TinyPath(c.model));
  ASSERT_TRUE(source.ok()) << source.status();
  const auto config = sharding::LoadModelConfig(TinyPath(c.model));
  ASSERT_TRUE(config.ok()) << config.status();
  edit::EditSpec spec;
  at::manual_seed(9);
  for (int k = 0; k < c.directions; ++k) {
    const at::Tensor vector = at::randn({config->d_model}, at::kDouble);
    spec.directions.emplace_back(vector.const_data_ptr<double>(), vector.const_data_ptr<double>() + vector.numel());
  }
  ASSERT_TRUE(edit::ParseStrengths(c.flags, &spec).ok());
  const absl::Status edited = comm::RunThreadRanks(1, [&](comm::Communicator& comm) -> absl::Status {
    BEARING_ASSIGN_OR_RETURN(const edit::EditPlan plan, edit::MakeEditPlan(**source, spec));
    const edit::RankGroup group{0, 1, [&](const absl::Status& status) { return status; }};
    return edit::EditCheckpoint(**source, plan, out, group, {}, {}).status();
  });
  ASSERT_TRUE(edited.ok()) << edited;
  const auto removal = RemovalOf(spec, config->num_layers(), config->d_model);
  ASSERT_TRUE(removal.ok()) << removal.status();
  model::Intervention whole = *removal;
  whole.strengths = at::Tensor();
  const steer::Rows rows = testing::RowsOf(testing::ReadTensors(TinyPath("traces/" + c.model + ".plain.safetensors")));
  const auto logits = [&](const std::string& model, const model::Intervention& what, int ranks, bool aten_ops) {
    TraceResult trace;
    const absl::Status status = WithDecoder(
        model, ranks, at::kFloat, [&](model::Decoder& d) { return RunTinyTrace(d, rows, what, true, trace); },
        model::GemmPath::kPlain, model::Residency::kResident, 1 << 16, aten_ops);
    EXPECT_TRUE(status.ok()) << status;
    return trace.logits;
  };
  const at::Tensor written = logits(out, {}, 1, false);
  for (const bool aten_ops : {false, true}) {
    const at::Tensor under = logits(TinyPath(c.model), *removal, c.ranks, aten_ops);
    EXPECT_LT(at::amax(at::abs(written - under)).item<float>(), 1e-3) << "aten=" << aten_ops;
    EXPECT_GT(at::amax(at::abs(under - logits(TinyPath(c.model), whole, c.ranks, aten_ops))).item<float>(), 1e-2)
        << "strengths change nothing";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, OneDefinitionTest,
    ::testing::Values(StrengthCase{"llama-tied", 1, 1, {{"0.5"}, {}, ""}},
                      StrengthCase{"llama-tied", 2, 2, {{"attention=1.4", "mlp=0.3", "embedding=0"}, {"1=0.5"}, ""}},
                      StrengthCase{"qwen2-untied", 2, 1, {{"embedding=0.7", "mlp=-0.5"}, {"0=0.2", "1=1.5"}, ""}},
                      StrengthCase{"llama-sharded", 1, 1, {{"1.2"}, {}, "1-1"}}));

TEST(RemovalOfTest, WholeRemovalIsThePlainCase) {
  edit::EditSpec spec;
  spec.directions = {{0, 3, 0, 4}};
  const auto plain = RemovalOf(spec, 2, 4);
  ASSERT_TRUE(plain.ok());
  EXPECT_FALSE(plain->strengths.defined());
  EXPECT_NEAR(plain->ablate_basis[0][1].item<float>(), 0.6, 1e-7);
  spec.layers[2] = 1;
  EXPECT_THAT(std::string(RemovalOf(spec, 2, 4).status().message()), HasSubstr("layer=2 layers=2"));
  spec.layers.clear();
  spec.directions = {{1, 2}};
  EXPECT_FALSE(RemovalOf(spec, 2, 4).ok());
  EXPECT_FALSE(RemovalOf({}, 2, 4)->ablate_basis.defined());
}

}  // namespace
}  // namespace bearing::worker
