#include "jobs/completion_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "tests/jobs/temporary_folder.h"

namespace bearing::jobs {
namespace {

CompletionRecord Record(int condition, int64_t row, const std::string& response) {
  return {condition, row, "positive", "baseline", response, "end", 3, 0.25};
}

class CompletionJournalTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::vector<CompletionRecord>& records) {
    auto writer = CompletionWriter::Open(path);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const CompletionRecord& record : records) (*writer)->Add(record);
    (*writer)->Sync();
    EXPECT_TRUE((*writer)->status().ok());
  }

  TemporaryFolder folder_;
  const std::string a_ = folder_.path() + "/a.jsonl", b_ = folder_.path() + "/b.jsonl";
};

TEST_F(CompletionJournalTest, WhatIsWrittenIsFound) {
  CompletionRecord odd = Record(1, 2, "half \xE2\x80");
  odd.metric = NAN;
  Write(a_, {Record(0, 0, "one\nline \"quoted\" ’"), odd});
  Write(b_, {Record(1, 0, "")});
  const auto index = CompletionIndex::Read({a_, b_, folder_.path() + "/none.jsonl"}, {2, 3});
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->found(), 3);
  EXPECT_TRUE(index->Has(0, 0) && index->Has(1, 0) && index->Has(1, 2));
  EXPECT_FALSE(index->Has(0, 1) || index->Has(1, 1));
  EXPECT_EQ(index->Get(0, 0)->response, "one\nline \"quoted\" ’");
  EXPECT_EQ(index->Get(0, 0)->metric, 0.25);
  EXPECT_EQ(index->Get(1, 0)->response, "");
  EXPECT_TRUE(std::isnan(index->Get(1, 2)->metric));
  EXPECT_EQ(index->Get(0, 1).status().code(), absl::StatusCode::kDataLoss);
}

// A kill in the middle of a line: it does not count, and the next run's lines do.
TEST_F(CompletionJournalTest, ATornLineDoesNotCount) {
  Write(a_, {Record(0, 0, "first"), Record(0, 1, "second")});
  std::string text;
  {
    std::ifstream in(a_);
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (size_t cut = text.find('\n') + 1; cut < text.size(); cut += 7) {
    std::ofstream(a_, std::ios::trunc) << text.substr(0, cut);
    const auto torn = CompletionIndex::Read({a_}, {3});
    EXPECT_EQ(torn->found(), 1) << cut;
    Write(a_, {Record(0, 2, "third")});
    const auto again = CompletionIndex::Read({a_}, {3});
    EXPECT_EQ(again->found(), 2) << cut;
    EXPECT_EQ(again->Get(0, 2)->response, "third");
  }
}

TEST_F(CompletionJournalTest, TheLastOfARowCountsAndForeignLinesDoNot) {
  Write(a_, {Record(0, 0, "old"), Record(0, 0, "new"), Record(5, 0, "no such condition"), Record(0, 9, "no such row")});
  std::ofstream(a_, std::ios::app) << "not JSON\n{\"condition\": 0}\n\n";
  const auto index = CompletionIndex::Read({a_}, {2});
  EXPECT_EQ(index->found(), 1);
  EXPECT_EQ(index->Get(0, 0)->response, "new");
}

}  // namespace
}  // namespace bearing::jobs
