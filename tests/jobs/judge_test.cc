// The judges that need no model: on a labelled set of responses written for this test, and against closed forms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "jobs/job_spec.h"
#include "jobs/judge/agreement.h"
#include "jobs/judge/judge_settings.h"
#include "jobs/judge/judge_tally.h"
#include "jobs/judge/response_text.h"
#include "jobs/judge/substring_judge.h"
#include "jobs/report/judge_section.h"
#include "tests/jobs/job_text.h"

namespace bearing::jobs {
namespace {

using ::testing::ElementsAre;

bearing::v1::JobSpec Refusal() {
  bearing::v1::JobSpec spec = *ParseJobFile(kGoodJob, "job.yaml");
  ApplyDefaults(spec);
  return spec;
}

struct Score {
  int right_yes = 0, wrong_yes = 0, missed = 0, right_no = 0;
};

// The paper's list on tests/jobs/data/responses.json. `refusal` there is what a reader says. The figures are those of
// docs/measure.md.
TEST(SubstringJudgeTest, PrecisionAndRecallOnLabelledResponses) {
  std::ifstream file(std::string(BEARING_SOURCE_DIR) + "/tests/jobs/data/responses.json");
  const nlohmann::json responses = nlohmann::json::parse(file);
  ASSERT_GE(responses.size(), 60u);
  const SubstringJudge judge(Refusal().concept_spec().markers());
  std::map<std::string, Score> scores;
  for (const nlohmann::json& entry : responses) {
    const bool says = !judge.Match(entry.at("response").get<std::string>()).empty(), is = entry.at("refusal").get<bool>();
    for (const std::string& kind : {std::string("all"), entry.at("kind").get<std::string>()}) {
      Score& score = scores[kind];
      ++(says ? (is ? score.right_yes : score.wrong_yes) : (is ? score.missed : score.right_no));
    }
  }
  const auto expect = [&](const char* kind, int right_yes, int wrong_yes, int missed, int right_no) {
    const Score& got = scores[kind];
    EXPECT_THAT((std::vector<int>{got.right_yes, got.wrong_yes, got.missed, got.right_no}),
                ElementsAre(right_yes, wrong_yes, missed, right_no))
        << kind;
  };
  expect("all", 22, 15, 15, 26);
  expect("plain refusal", 12, 0, 0, 0);
  expect("typographic apostrophes", 4, 0, 0, 0);
  expect("capitals", 3, 0, 0, 0);
  expect("refusal after a start", 3, 0, 1, 0);
  expect("refusal without the usual words", 0, 0, 8, 0);  // What a list of phrases cannot see.
  expect("other languages", 0, 0, 6, 0);
  expect("words of a refusal in an answer", 0, 7, 0, 0);
  expect("quoting a refusal", 0, 4, 0, 0);
  expect("plain answer", 0, 0, 0, 12);
  expect("short answer", 0, 0, 0, 5);
  expect("nothing", 0, 0, 0, 3);
}

TEST(SubstringJudgeTest, FoldsLettersAndApostrophes) {
  const SubstringJudge judge(std::vector<std::string>{"I can't", "DÉSOLÉ", "не могу", "δεν μπορώ"});
  for (const char* text : {"i CAN'T", "Well, I can’t.", "I canʼt", "I can＇t"}) EXPECT_EQ(judge.Match(text), "I can't") << text;
  EXPECT_EQ(judge.Match("je suis désolé"), "DÉSOLÉ");
  EXPECT_EQ(judge.Match("Я НЕ МОГУ"), "не могу");
  EXPECT_EQ(judge.Match("ΔΕΝ ΜΠΟΡΏ"), "δεν μπορώ");
  EXPECT_EQ(judge.Match("I can\"t"), "");
  EXPECT_EQ(judge.Match(""), "");
  EXPECT_EQ(judge.Match("I can\xE2\x80"), "");  // The end of a completion may be half a character.
  EXPECT_EQ(FoldForMatching("\xFF\xC3 Ж\xF0\x9F\x98\x80"), "\xFF\xC3 ж\xF0\x9F\x98\x80");
}

TEST(ResponseTextTest, CountsWordsAsPythonDoes) {
  EXPECT_EQ(CountWords(""), 0u);
  EXPECT_EQ(CountWords(" \n\t"), 0u);
  EXPECT_EQ(CountWords("one  two\nthree\u00a0four\u3000five"), 5u);
  EXPECT_EQ(CountWords("don't-count twice."), 2u);
}

// The kappa of Cohen's own example of two raters: 50 subjects, 20 + 15 agree, 5 and 10 do not.
TEST(AgreementTest, IsCohensKappa) {
  Agreement agreement(2);
  const auto add = [&](int times, bool a, bool b) {
    for (int i = 0; i < times; ++i) agreement.Add({a, b});
  };
  add(20, true, true);
  add(5, true, false);
  add(10, false, true);
  add(15, false, false);
  agreement.Add({true, std::nullopt});  // Not judged by both.
  const PairCounts& pair = agreement.Of(0, 1);
  EXPECT_EQ(pair.n(), 50);
  EXPECT_DOUBLE_EQ(*pair.Raw(), 0.7);
  EXPECT_NEAR(*pair.Kappa(), 0.4, 1e-12);
  EXPECT_FALSE(PairCounts{}.Raw().has_value());
  EXPECT_FALSE((PairCounts{.both = 9}.Kappa().has_value())) << "both always say yes: nothing beyond chance can be told";
  EXPECT_DOUBLE_EQ(*(PairCounts{.both = 4, .neither = 6}.Kappa()), 1);
}

TEST(JudgeTallyTest, RatesErrorsCategoriesAndTurnedJudges) {
  bearing::v1::JobSpec spec = Refusal();
  bearing::v1::Judge& guard = *spec.add_judges();
  guard.mutable_model()->set_preset("llama-guard");
  guard.mutable_model()->set_path("guard");
  ApplyDefaults(spec);
  const std::vector<bearing::v1::Judge> judges = JudgesOf(spec);
  ASSERT_EQ(judges.size(), 3u);
  EXPECT_EQ(judges[1].name(), "llama-guard");
  EXPECT_TRUE(judges[1].opposite());
  EXPECT_EQ(judges[1].min_words(), 15);
  EXPECT_THAT(judges[1].model().says_yes(), ElementsAre("unsafe"));
  JudgeTally tally(judges, "refusal");
  // Refused and safe; answered and unsafe; answered, and the guard could not read it.
  tally.Add("positive", "baseline", "theft", {{true, {}}, {false, 0.1}, {true, 2.0}});
  tally.Add("positive", "baseline", "theft", {{false, {}}, {true, 0.9}, {true, 1.0}});
  tally.Add("positive", "baseline", "arson", {{false, {}}, {std::nullopt, {}}, {false, -1.0}});
  const nlohmann::json all = tally.ToJson({nullptr, {{"name", "guard"}}, nullptr});
  EXPECT_NEAR(all["rates"][0]["share"].get<double>(), 1.0 / 3, 1e-12);
  EXPECT_NEAR(all["rates"][0]["standard_error"].get<double>(), std::sqrt(1.0 / 3 * 2 / 3 / 3), 1e-12);
  EXPECT_EQ(all["rates_by_category"].size(), 2u);
  EXPECT_EQ(all["rates_by_category"][1]["category"], "theft");
  EXPECT_EQ(all["rates_by_category"][1]["share"], 0.5);
  EXPECT_NEAR(all["rates_by_category"][1]["standard_error"].get<double>(), std::sqrt(0.125), 1e-12);
  const nlohmann::json& unsafe = all["judges"][1]["rates"][0];
  EXPECT_EQ(unsafe["share"], 0.5) << "in its own terms";
  EXPECT_EQ(unsafe["n"], 2);
  EXPECT_EQ(unsafe["not_judged"], 1);
  EXPECT_EQ(all["judges"][1]["finds"], "unsafe");
  EXPECT_EQ(all["agreement"][0]["judges"], (nlohmann::json{"markers", "llama-guard"}));
  EXPECT_EQ(all["agreement"][0]["raw"], 1.0) << "turned round: unsafe speaks against refusal";
  EXPECT_EQ(all["agreement"].size(), 3u);
}

TEST(JudgeSectionTest, ShowsRatesAndAgreement) {
  bearing::v1::JobSpec spec = Refusal();
  spec.add_judges()->set_name("a<b");  // Names of older files are escaped, whatever they hold.
  spec.mutable_judges(0)->add_markers("x");
  ApplyDefaults(spec);
  JudgeTally tally(JudgesOf(spec), "refusal");
  for (int i = 0; i < 4; ++i) tally.Add("positive", "baseline", "", {{true, {}}, {i > 0, {}}, {std::nullopt, {}}});
  const nlohmann::json all = tally.ToJson({nullptr, nullptr, nullptr});
  ReportData data;
  EXPECT_EQ(JudgeSection(data), "");
  data.judges = all["judges"];
  data.agreement = all["agreement"];
  const std::string html = JudgeSection(data);
  for (const char* text :
       {"positive, baseline", "100.0 % ± 0.0", "75.0 % ± 21.7", "(4 not judged)", "markers and a&lt;b", "0.00"}) {
    EXPECT_THAT(html, ::testing::HasSubstr(text));
  }
  EXPECT_EQ(html.find("a<b"), std::string::npos);
}

// The violations of a good job with these judges, as "field: message".
std::vector<std::string> Violations(const std::string& judges) {
  const auto spec = ParseJobFile(std::string(kGoodJob) + "judges:\n" + judges, "job.yaml");
  if (!spec.ok()) return {std::string(spec.status().message())};
  std::vector<std::string> lines;
  for (const FieldViolation& violation : ValidateFields(*spec)) lines.push_back(violation.field + ": " + violation.message);
  return lines;
}

TEST(JudgeSettingsTest, WhatIsWrongIsNamed) {
  EXPECT_THAT(Violations("- {markers: [no]}\n- {kind: metric, threshold: 1}\n- {model: {path: /m, preset: llama-guard}}\n"
                         "- {name: own, model: {path: /m, prompt: 'Is {response} a no?', says_yes: [Yes], says_no: [No]}}\n"),
              ElementsAre());
  EXPECT_THAT(Violations("- {}\n"), ElementsAre("judges[0].kind: missing: one of substrings, metric, model"));
  EXPECT_THAT(Violations("- {kind: substring}\n"),
              ElementsAre("judges[0].kind: expected one of substrings, metric, model, found \"substring\"; did you mean "
                          "\"substrings\"?"));
  EXPECT_THAT(Violations("- {marker: [x]}\n"), ElementsAre(::testing::HasSubstr("did you mean \"")));
  EXPECT_THAT(
      Violations("- {model: {path: /m, preset: llamaguard}}\n"),
      ::testing::Contains("judges[0].model.preset: expected one of llama-guard, harmbench, found \"llamaguard\"; did you "
                          "mean \"llama-guard\"?"));
  EXPECT_THAT(Violations("- {model: {path: /m, preset: llama-guard}, threshold: 2}\n"),
              ElementsAre("judges[0].threshold: expected a probability between 0 and 1, found 2"));
  EXPECT_THAT(Violations("- {model: {path: /m, preset: llama-guard}}\n- {model: {path: /n, preset: llama-guard}}\n"),
              ElementsAre("judges[1].name: given twice: \"llama-guard\"; judges need names of their own"));
  EXPECT_THAT(Violations("- {name: markers, markers: [x]}\n"),
              ElementsAre("judges[0].name: \"markers\" is the judge of concept.markers; choose another name"));
  EXPECT_THAT(Violations("- {model: {path: /m}}\n"),
              ElementsAre("judges[0].model.prompt: missing: what the judge is asked, with {prompt} and {response} in it",
                          "judges[0].model.says_yes: missing: the texts its verdict begins with, e.g. [\"Yes\"]",
                          "judges[0].model.says_no: missing: the texts its verdict begins with, e.g. [\"Yes\"]"));
  EXPECT_THAT(Violations("- {kind: metric, markers: [x], min_words: -1}\n"),
              ElementsAre("judges[0].min_words: expected 0 to 10000, found -1",
                          "judges[0].markers: belongs to a judge of kind substrings, not metric"));
}

}  // namespace
}  // namespace bearing::jobs
