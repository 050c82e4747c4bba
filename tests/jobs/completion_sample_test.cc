#include "jobs/report/completion_sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "jobs/report/completion_reader.h"
#include "jobs/utf8.h"
#include "tests/jobs/report_fixture.h"
#include "tests/jobs/temporary_folder.h"

namespace bearing::jobs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

TEST(CompletionSampleTest, ASmallSetIsShownWhole) { EXPECT_THAT(ChoosePrompts({0, 1, 0}, 3), ElementsAre(0, 1, 2)); }

TEST(CompletionSampleTest, MarkedPromptsComeFirst) {
  std::vector<uint8_t> marks(1000, 0);
  for (const size_t i : {7, 500, 999}) marks[i] = kJudgesDiffer;
  marks[3] = kStillShows;
  marks[8] = kStillShows | kJudgesDiffer;
  EXPECT_THAT(ChoosePrompts(marks, 10), ElementsAre(0, 3, 7, 8, 202, 401, 500, 601, 800, 999))
      << "four and one with a mark, five others, evenly spaced";
}

TEST(CompletionSampleTest, NoKindTakesAllPlacesAndNoPlaceIsLeft) {
  for (const size_t differ : {0, 5, 400, 1000}) {
    for (const size_t show : {0, 3, 600}) {
      std::vector<uint8_t> marks(differ + show + 500, 0);
      for (size_t i = 0; i < differ; ++i) marks[i] = kJudgesDiffer;
      for (size_t i = differ; i < differ + show; ++i) marks[i] = kStillShows;
      const std::vector<size_t> chosen = ChoosePrompts(marks, 100);
      EXPECT_EQ(chosen.size(), 100u);
      EXPECT_EQ(std::adjacent_find(chosen.begin(), chosen.end(), std::greater_equal<>()), chosen.end());
      const auto of = [&](uint8_t mark) {
        return std::count_if(chosen.begin(), chosen.end(), [&](size_t i) { return marks[i] == mark; });
      };
      EXPECT_EQ(of(kJudgesDiffer), std::min<int64_t>(static_cast<int64_t>(differ), 50));
      EXPECT_EQ(of(kStillShows), std::min<int64_t>(static_cast<int64_t>(show), 25));
    }
  }
  EXPECT_EQ(ChoosePrompts(std::vector<uint8_t>(300, kJudgesDiffer), 100).size(), 100u) << "where all are of one kind";
}

TEST(CompletionSampleTest, LongTextsAreCutBeforeACharacter) {
  EXPECT_EQ(Shortened("abc", 3), "abc");
  EXPECT_EQ(Shortened("ab\u6f22", 4), "ab [...]");
  EXPECT_EQ(FirstInvalidUtf8(Shortened("a\u00e9\u6f22\u6f22", 5)), std::string_view::npos);
}

class CompletionReaderTest : public ::testing::Test {
 protected:
  // `prompts` a side. Judges differ on positive prompt 11, ablation fails on positive prompt 20.
  ReportData Read(int prompts) {
    const std::string file = folder_.path() + "/completions.jsonl";
    std::ofstream out(file);
    const std::pair<const char*, const char*> conditions[] = {
        {"positive", "baseline"}, {"positive", "ablation"}, {"negative", "baseline"}, {"negative", "addition"}};
    for (const auto& [side, intervention] : conditions) {
      const bool positive = side == conditions[0].first, before = intervention == conditions[0].second;
      for (int i = 0; i < prompts; ++i) {
        const bool shows = (positive && before) || (positive && i == 20);
        // The second judge finds the opposite.
        const bool second = positive && i == 11 && before ? shows : !shows;
        out << Json{{"side", side},
                    {"intervention", intervention},
                    {"category", i % 2 == 0 ? "even" : "odd"},
                    {"prompt", "the same prompt"},
                    {"response", std::string(i == 11 ? 20000 : 100, 'x') + std::to_string(i)},
                    {"shows_concept", shows},
                    {"matched_marker", ""},
                    {"verdicts", {{"markers", {{"verdict", shows}}}, {"guard", {{"verdict", second}, {"score", 0.5}}}}}}
                   .dump()
            << "\n";
      }
    }
    out.close();
    ReportData data;
    data.concept_name = "refusal";
    data.judges = Json::array({{{"name", "markers"}, {"finds", "refusal"}, {"opposite", false}},
                               {{"name", "guard"}, {"finds", "unsafe"}, {"opposite", true}}});
    const absl::Status read = TakeCompletions(file, data);
    EXPECT_TRUE(read.ok()) << read;
    data.judges = nullptr;  // The section of the judges needs more of them.
    return data;
  }

  TemporaryFolder folder_;
};

TEST_F(CompletionReaderTest, CountsAllAndShowsTheMarkedOnes) {
  const ReportData data = Read(1000);
  EXPECT_EQ(data.counts.Of("positive", "baseline").n, 1000);
  EXPECT_DOUBLE_EQ(data.counts.Of("positive", "ablation").share, 0.001);
  ASSERT_EQ(data.counts.ByCategory().size(), 4u);
  EXPECT_EQ(data.counts.ByCategory()[1].rates.at("ablation").n, 500);
  EXPECT_EQ(data.completions.size(), 4 * kShownPrompts);
  const ShownPrompts& shown = data.shown.at("positive");
  EXPECT_EQ(shown.prompts, 1000u);
  EXPECT_EQ(shown.shown, kShownPrompts);
  EXPECT_EQ(shown.judges_differ, 1u);
  EXPECT_EQ(shown.still_shows, 1u);
  EXPECT_EQ(data.shown.at("negative").judges_differ, 0u);
  // Of a prompt that is shown, every completion is; both that have a mark are among them.
  int differing = 0, failing = 0;
  for (const Completion& completion : data.completions) {
    differing += completion.verdicts[1] == "guard: unsafe (0.5)" && completion.verdicts[0] == "markers: refusal" ? 1 : 0;
    failing += completion.intervention == "ablation" && completion.shows_concept ? 1 : 0;
    EXPECT_LT(completion.response.size(), kShownBytes + 10);
  }
  EXPECT_EQ(differing, 1);
  EXPECT_EQ(failing, 1);
}

TEST_F(CompletionReaderTest, PageAndNumbersSayHowMany) {
  const ReportData many = Read(1000);
  const std::string page = RenderReportHtml(many);
  EXPECT_THAT(page, HasSubstr("200 of 1000 positive prompts are shown"));
  EXPECT_THAT(page, HasSubstr("completions.jsonl"));
  const Json json = Json::parse(RenderReportJson(many));
  EXPECT_EQ(json["completions_shown"][0],
            (Json{{"side", "positive"}, {"prompts", 1000}, {"shown", 200}, {"judges_differ", 1}, {"still_shows", 1}}));
  EXPECT_EQ(json["completions"].size(), 800u);
  EXPECT_THAT(RenderReportHtml(Read(100)), Not(HasSubstr("prompts are shown")));
}

TEST_F(CompletionReaderTest, TheSizeOfThePageDoesNotGrow) {
  const std::string some = RenderReportHtml(Read(300)), more = RenderReportHtml(Read(900));
  EXPECT_LT(more.size(), some.size() + some.size() / 100);
}

TEST_F(CompletionReaderTest, AFileOfAnotherKindIsNamed) {
  const std::string file = folder_.path() + "/completions.jsonl";
  std::ofstream(file) << "{\"side\": \"positive\"}\n";
  ReportData data;
  const absl::Status read = TakeCompletions(file, data);
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(read.message()), HasSubstr("completions.jsonl"));
}

}  // namespace
}  // namespace bearing::jobs
