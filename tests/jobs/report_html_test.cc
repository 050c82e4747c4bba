#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "jobs/report/report.h"
#include "tests/jobs/markup_checker.h"
#include "tests/jobs/report_fixture.h"

namespace bearing::jobs {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kHostile[] = "\"><script>alert('x')</script><img src=x onerror=y>&copy;\x01\xFF";

TEST(ReportHtmlTest, IsWellFormed) {
  for (const bool complete : {false, true}) {
    const Markup markup = ReadMarkup(RenderReportHtml(ExampleReport(complete)));
    EXPECT_EQ(markup.error, "");
  }
  EXPECT_EQ(ReadMarkup(RenderReportHtml(ReportData())).error, "") << "a report without any data";
}

TEST(ReportHtmlTest, TheCheckerFindsMistakes) {
  EXPECT_NE(ReadMarkup("<p><b></p></b>").error, "");
  EXPECT_NE(ReadMarkup("<p>").error, "");
  EXPECT_NE(ReadMarkup("<p a=b></p>").error, "");
  EXPECT_NE(ReadMarkup("<p>a & b</p>").error, "");
  EXPECT_NE(ReadMarkup("<p id=\"a\"></p><p id=\"a\"></p>").error, "");
}

TEST(ReportHtmlTest, IsSelfContained) {
  const std::string html = RenderReportHtml(ExampleReport(false));
  for (const char* forbidden : {"<script", "http:", "https:", "//", "@import", "<link", "<img", "<iframe", "javascript:"}) {
    EXPECT_THAT(html, Not(HasSubstr(forbidden)));
  }
  for (const Element& element : ReadMarkup(html).elements) {
    for (const auto& [name, value] : element.attributes) {
      EXPECT_NE(name, "src");
      if (name == "href") {
        EXPECT_THAT(value, testing::StartsWith("#")) << "no link leads out of the page";
      }
      EXPECT_NE(name.substr(0, 2), "on") << element.name;
      EXPECT_EQ(value.find("url(#"), value.find("url(")) << value;
    }
  }
}

TEST(ReportHtmlTest, TheContentsNameEverySection) {
  for (const ReportData& data : {ReportData(), ExampleReport(false)}) {
    const Markup markup = ReadMarkup(RenderReportHtml(data));
    std::vector<std::string> sections, links;
    for (const Element* section : markup.Find("section")) sections.push_back("#" + section->attributes.at("id"));
    for (const Element* link : markup.Find("a")) links.push_back(link->attributes.at("href"));
    EXPECT_FALSE(sections.empty());
    EXPECT_EQ(links, sections);
  }
}

TEST(ReportHtmlTest, HostileTextIsEscapedEverywhere) {
  ReportData data = ExampleReport(false);
  data.title = data.concept_name = data.version = data.created = data.model_name = data.model_digest = data.dtype = kHostile;
  for (std::string& token : data.position_tokens) token = kHostile;
  for (auto& token : data.metric_tokens) token.text = kHostile;
  for (auto& [name, counts] : data.prompt_counts) name = kHostile;
  data.relaxations = {kHostile};
  for (Completion& completion : data.completions) {
    completion.category = completion.response = completion.matched_marker = kHostile;
    completion.prompt += kHostile;
  }
  CountCompletions(data);
  data.verification = {{kHostile, kHostile}};
  data.stage_seconds = {{kHostile, 1}};
  data.provenance = {{kHostile, kHostile}};
  const std::string html = RenderReportHtml(data);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_THAT(html, Not(HasSubstr("\x01")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(&#39;x&#39;)"));
  EXPECT_EQ(ReadMarkup(html).error, "");
}

TEST(ReportHtmlTest, EachHeatMapHasOneCellACandidate) {
  for (const bool complete : {false, true}) {
    const ReportData data = ExampleReport(complete);
    const Markup markup = ReadMarkup(RenderReportHtml(data));
    EXPECT_EQ(markup.Find("svg", "heatmap").size(), 3u);
    EXPECT_EQ(markup.Find("rect", "cell").size(), 3 * data.candidates.size());
  }
}

TEST(ReportHtmlTest, CellsThatWereNotScoredAreHatchedAndExplained) {
  const std::string cheap = RenderReportHtml(ExampleReport(false));
  EXPECT_THAT(cheap, HasSubstr("fill=\"url(#kl-stopped)\""));
  EXPECT_THAT(cheap, HasSubstr("an earlier, cheaper test (induce, then KL) had failed already"));
  EXPECT_THAT(cheap, HasSubstr("last layers, which the rule leaves out"));
  EXPECT_THAT(cheap, HasSubstr("layer 1, position −6: not scored: stopped, induce is below its threshold"));
  const std::string complete = RenderReportHtml(ExampleReport(true));
  EXPECT_THAT(complete, Not(HasSubstr("class=\"cell\" fill=\"url(")));
  EXPECT_THAT(complete, Not(HasSubstr("an earlier, cheaper test")));
}

TEST(ReportHtmlTest, TheChosenCandidateIsOutlinedOnEveryMap) {
  const Markup markup = ReadMarkup(RenderReportHtml(ExampleReport(false)));
  size_t rings = 0;
  for (const Element* element : markup.Find("rect", "ring")) rings += element->attributes.at("width") != "14" ? 1 : 0;
  EXPECT_EQ(rings, 3u) << "the one of the legend has its own size";
}

TEST(ReportHtmlTest, TheSummaryHasTheNumbers) {
  const std::string html = RenderReportHtml(ExampleReport(false));
  for (const char* text :
       {"is read before layer 20, at position −5", "−6.75", "1.64", "0.0472", "47.2 % of the maximum of 0.1",
        "7<small> of 192</small>", "93.8 %", "± 6.1", "6.2 %",
        "Ablating it takes refusal from 93.8 % ± 6.1 to 6.2 % ± 6.1 of 16 positive test prompts",
        "Adding it takes refusal from 0.0 % ± 0.0 to 93.8 % ± 6.1 of 16 negative test prompts",
        "It passed the tests with 1.64 to spare in induce, and with 47.2 % of the KL that is allowed",
        "It costs a mean KL divergence of 0.0472", "Ablating it changes cross-entropy on wiki by 0.0077 ± 0.0021 nats a token",
        "rule allows layers below 25"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
}

TEST(ReportHtmlTest, NothingFoundSaysHowNearAndWhatWasRelaxedIsShown) {
  ReportData data = ExampleReport(false);
  data.rule.kl_max = 0.001;
  data.selected = -1;
  const std::string none = RenderReportHtml(data);
  EXPECT_THAT(none, HasSubstr("passes the tests"));
  EXPECT_THAT(none, HasSubstr("select.kl_max is 0.001"));
  EXPECT_EQ(ReadMarkup(none).error, "");
  data = ExampleReport(false);
  data.relaxations = {"select.kl_max raised from 0.1 to 0.125"};
  EXPECT_THAT(RenderReportHtml(data), HasSubstr("Relaxed:</strong> select.kl_max raised from 0.1 to 0.125"));
}

TEST(ReportHtmlTest, DrawingsAndTablesAreAccessible) {
  const Markup markup = ReadMarkup(RenderReportHtml(ExampleReport(true)));
  size_t drawings = 0;
  for (const Element* svg : markup.Find("svg")) {
    if (svg->attributes.count("aria-hidden") > 0) continue;
    ++drawings;
    EXPECT_EQ(svg->attributes.at("role"), "img");
    EXPECT_NE(svg->attributes.at("aria-labelledby"), "");
  }
  EXPECT_EQ(drawings, 8u) << "three heat maps, the scatter, the norms; separation, projections, components";
  for (const Element* header : markup.Find("th")) EXPECT_EQ(header->attributes.count("scope"), 1u);
  EXPECT_EQ(markup.Find("html")[0]->attributes.at("lang"), "en");
  EXPECT_EQ(markup.Find("h1").size(), 1u);
}

TEST(ReportHtmlTest, CompletionsStandSideBySide) {
  const std::string html = RenderReportHtml(ExampleReport(false));
  const Markup markup = ReadMarkup(html);
  EXPECT_EQ(markup.Find("details", "completion").size(), 48u) << "16 prompts, three comparisons";
  EXPECT_EQ(markup.Find("div", "response").size(), 96u);
  EXPECT_THAT(html, HasSubstr("refusal → no refusal"));
  EXPECT_THAT(html, HasSubstr("contains “I&#39;m sorry”"));
}

TEST(ReportHtmlTest, ASideThatWasNotRunUnderTheInterventionIsLeftOut) {
  ReportData data = ExampleReport(false);
  std::erase_if(data.completions, [](const Completion& completion) { return completion.intervention != "baseline"; });
  CountCompletions(data);
  EXPECT_THAT(RenderReportHtml(data), Not(HasSubstr("Completions side by side")));
}

TEST(ReportHtmlTest, OddNumbersDoNotBreakIt) {
  ReportData data = ExampleReport(true);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (Candidate& candidate : data.candidates) candidate.induce = nan;
  data.candidates[3].kl = std::numeric_limits<double>::infinity();
  data.positive_norms.clear();
  data.difference_norms[1].assign(32, 0);
  data.metric_tokens.clear();
  data.completions.resize(2);
  data.completions[1].prompt = "a prompt that was not run unchanged";
  CountCompletions(data);
  data.stage_seconds = {{"load", 0}};
  const std::string html = RenderReportHtml(data);
  EXPECT_EQ(ReadMarkup(html).error, "");
  EXPECT_THAT(html, Not(HasSubstr("\"nan")));
  EXPECT_THAT(html, Not(HasSubstr("-nan")));
  EXPECT_THAT(html, HasSubstr("not generated"));
}

}  // namespace
}  // namespace bearing::jobs
