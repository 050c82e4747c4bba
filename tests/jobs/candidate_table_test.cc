#include "jobs/candidate_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "sharding/safetensors.h"
#include "tests/jobs/selection_table.h"
#include "tests/jobs/temporary_folder.h"

namespace bearing::jobs {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class CandidateTableTest : public ::testing::Test {
 protected:
  std::string Error(const std::string& text, int64_t num_layers = 0) {
    root_.Write("table.json", text);
    return std::string(LoadCandidateTable(root_.PathOf("table.json"), num_layers).status().message());
  }

  // A job's table of two layers and one position, with its means.
  std::string WriteRun() {
    root_.Write("run/candidates.json", R"({"num_layers": 2, "rule": {"kl_max": 0.1, "induce_min": 0, "prune_layers": 0},
      "candidates": [{"position": -1, "layer": 0, "norm": 5, "induce": 1, "kl": 0.05, "bypass": -1},
                     {"position": -1, "layer": 1, "norm": 5, "induce": 1, "kl": 0.15, "bypass": null}]})");
    const double difference[] = {1, 0, 0, 0, 3, 4};
    EXPECT_TRUE(sharding::WriteSafetensors(root_.PathOf("run/means.safetensors"),
                                           {{"mean_difference", sharding::DType::kF64, {1, 2, 3}, difference}}, {})
                    .ok());
    return root_.PathOf("run");
  }

  TemporaryFolder root_;
};

// The tables that the reference recorded, in its own file format, choose what the reference chose.
TEST_F(CandidateTableTest, ReadsTheReferencesFile) {
  for (const char* name : {"gemma_2b_it", "yi_6b_chat"}) {
    const SelectionTable recorded = LoadSelectionTable(name);
    std::string text = "[\n";
    for (const Candidate& c : recorded.candidates) {
      text += nlohmann::json{{"position", c.position},
                             {"layer", c.layer},
                             {"refusal_score", *c.bypass},
                             {"steering_score", *c.induce},
                             {"kl_div_score", *c.kl}}
                  .dump() +
              ",\n";
    }
    // As Python writes it; such a candidate is discarded.
    text += R"({"position": -1, "layer": 0, "refusal_score": NaN, "steering_score": -Infinity, "kl_div_score": 0.0}])";
    root_.Write("direction_evaluations.json", text);
    const auto table = LoadCandidateTable(root_.PathOf("direction_evaluations.json"), recorded.num_layers);
    ASSERT_TRUE(table.ok()) << table.status();
    const Selection selection = Select(table->candidates, table->rule);
    ASSERT_TRUE(selection.selected.has_value()) << name;
    EXPECT_EQ(table->candidates[*selection.selected].layer, recorded.selected.second) << name;
    EXPECT_EQ(table->candidates[*selection.selected].position, recorded.selected.first) << name;
    EXPECT_EQ(selection.discarded.at("nan"), 1u);
  }
}

TEST_F(CandidateTableTest, ReadsAJobsFolderAndWritesTheDirection) {
  auto table = LoadCandidateTable(WriteRun(), 0);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(Select(table->candidates, table->rule).selected, 0u);
  table->rule.kl_max = 0.2;
  EXPECT_EQ(Select(table->candidates, table->rule).discarded.at("not_scored"), 1u);

  Candidate chosen = table->candidates[1];
  chosen.bypass = -2;
  const std::string out = root_.PathOf("direction.safetensors");
  ASSERT_TRUE(WriteDirectionOf(*table, chosen, out).ok());
  const auto header = sharding::ReadSafetensorsHeader(out);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->metadata.at("layer"), "1");
  EXPECT_EQ(header->metadata.at("bypass"), "-2");
  const auto file = sharding::OpenForReading(out);
  for (const sharding::SafetensorsEntry& entry : header->entries) {
    float values[3];
    ASSERT_TRUE(
        sharding::ReadAt(*file, entry.file_offset, absl::MakeSpan(reinterpret_cast<char*>(values), sizeof(values)), out).ok());
    const float length = entry.name == "direction" ? 5.0F : 1.0F;
    EXPECT_FLOAT_EQ(values[1], 3 / length) << entry.name;
    EXPECT_FLOAT_EQ(values[2], 4 / length) << entry.name;
  }
  EXPECT_TRUE(absl::IsAlreadyExists(WriteDirectionOf(*table, chosen, out)));
}

TEST_F(CandidateTableTest, SaysWhatIsWrong) {
  EXPECT_THAT(Error("[]"), AllOf(HasSubstr("--num-layers"), HasSubstr("table.json")));
  EXPECT_THAT(Error("{"), HasSubstr("neither candidates.json of a job nor"));
  EXPECT_THAT(Error(R"([{"position": -1, "layer": 0}])", 4), HasSubstr("entry 0 has no refusal_score that is a number"));
  constexpr char kEntry[] = R"([{"position": -1, "layer": 9, "refusal_score": 0, "steering_score": 0, "kl_div_score": 0}])";
  EXPECT_THAT(Error(kEntry, 9), AllOf(HasSubstr("entry 0 is of layer 9"), HasSubstr("9 layers (--num-layers)")));
  EXPECT_EQ(Error(kEntry, 10), "");
  EXPECT_THAT(Error(R"([7])", 4), HasSubstr("entry 0 has no position that is an integer"));
  EXPECT_THAT(Error(R"({"candidates": []})"), HasSubstr("num_layers and rule"));
  EXPECT_THAT(Error(R"({"num_layers": 2})"), HasSubstr("no list of candidates"));
  EXPECT_TRUE(absl::IsNotFound(LoadCandidateTable(root_.PathOf("none.json"), 0).status()));
  CandidateTable reference;
  EXPECT_TRUE(absl::IsFailedPrecondition(WriteDirectionOf(reference, Candidate(), root_.PathOf("d"))));
}

}  // namespace
}  // namespace bearing::jobs
