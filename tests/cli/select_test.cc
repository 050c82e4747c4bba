// `bearing select` on the table that the reference implementation recorded, in the reference's own file format.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/job_folder.h"
#include "tests/cli/program.h"

namespace bearing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class SelectTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ifstream(BEARING_SOURCE_DIR "/tests/jobs/data/selection_gemma_2b_it.json") >> recorded_;
    Json list = Json::array();
    for (const Json& row : recorded_["candidates"]) {
      list.push_back({{"position", row[0]},
                      {"layer", row[1]},
                      {"refusal_score", row[2]},
                      {"steering_score", row[3]},
                      {"kl_div_score", row[4]}});
    }
    std::ofstream(table_) << list;
  }

  // The answer of `select -o json`; exit code in code_.
  Json Select(std::vector<std::string> more) {
    std::vector<std::string> arguments = {BEARING_PROGRAM, "select", "--from", table_, "-o", "json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    testing::Program program(arguments, {}, folder_.path());
    code_ = program.Wait();
    errors_ = program.Errors();
    return Json::parse(program.Output(), nullptr, /*allow_exceptions=*/false);
  }

  testing::TempFolder folder_;
  const std::string table_ = folder_.path() + "/direction_evaluations.json";
  Json recorded_;
  int code_ = -1;
  std::string errors_;
};

TEST_F(SelectTest, ChoosesWhatTheReferenceChose) {
  const Json answer = Select({"--num-layers", "18"});
  ASSERT_EQ(code_, 0) << errors_;
  EXPECT_EQ(answer["selected"]["layer"], recorded_["selected"]["layer"]);
  EXPECT_EQ(answer["selected"]["position"], recorded_["selected"]["position"]);
  EXPECT_EQ(answer.size(), 4u);
  EXPECT_EQ(answer["selected"].size(), 5u);
  EXPECT_EQ(answer["considered"], recorded_["candidates"].size());
  size_t all = answer["kept"].get<size_t>();
  for (const auto& [reason, count] : answer["discarded"].items()) all += count.get<size_t>();
  EXPECT_EQ(all, answer["considered"]);
}

// Against the paper's rule written out: the least bypass of those below layer int(0.8 L) with induce >= 0 and KL <= the limit.
TEST_F(SelectTest, AnotherLimitChoosesAnew) {
  for (const double limit : {0.02, 0.05, 0.2, 1.0}) {
    const Json* best = nullptr;
    size_t kept = 0;
    for (const Json& row : recorded_["candidates"]) {
      if (row[1].get<int>() >= 14 || row[3].get<double>() < 0 || row[4].get<double>() > limit) continue;
      ++kept;
      if (best == nullptr || row[2].get<double>() < (*best)[2].get<double>()) best = &row;
    }
    const Json answer = Select({"--num-layers", "18", "--kl-max", std::to_string(limit)});
    EXPECT_EQ(answer["kept"], kept) << limit;
    if (best == nullptr) {
      EXPECT_EQ(code_, 1);
      EXPECT_TRUE(answer["selected"].is_null());
      continue;
    }
    EXPECT_EQ(code_, 0) << errors_;
    EXPECT_EQ(answer["selected"], (Json{{"position", (*best)[0]},
                                        {"layer", (*best)[1]},
                                        {"bypass", (*best)[2]},
                                        {"induce", (*best)[3]},
                                        {"kl", (*best)[4]}}))
        << limit;
  }
}

TEST_F(SelectTest, TheNumberOfLayersMustBeGivenAndFit) {
  Select({});
  EXPECT_EQ(code_, 2);
  EXPECT_THAT(errors_, HasSubstr("--num-layers"));
  Select({"--num-layers", "5"});
  EXPECT_EQ(code_, 2);
  EXPECT_THAT(errors_, HasSubstr("of a model with 5 layers"));
}

}  // namespace
}  // namespace bearing
