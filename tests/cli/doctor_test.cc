#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/doctor/finding.h"
#include "cli/doctor/group_checks.h"
#include "cli/doctor/http_date.h"
#include "cli/doctor/machine_checks.h"
#include "cli/doctor/network_checks.h"
#include "tests/cli/job_folder.h"

namespace bearing::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Result = Finding::Result;

TEST(FindingTest, TableJsonAndBroken) {
  const std::vector<Finding> fine = {{"mpirun", Result::kOk, "/usr/bin/mpirun", ""},
                                     {"clock", Result::kSkipped, "no server", ""}};
  EXPECT_FALSE(AnyBroken(fine));
  EXPECT_THAT(FormatFindings(fine), Not(HasSubstr("To mend")));
  std::vector<Finding> bad = fine;
  bad.push_back({"disk", Result::kWarning, "little", "free space"});
  EXPECT_FALSE(AnyBroken(bad));
  bad.push_back({"ranks", Result::kBroken, "none", "start them"});
  EXPECT_TRUE(AnyBroken(bad));
  EXPECT_THAT(FormatFindings(bad), HasSubstr("\nTo mend:\n  disk: free space\n  ranks: start them\n"));
  const nlohmann::json json = FindingsJson(bad);
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["checks"][3],
            (nlohmann::json{{"check", "ranks"}, {"result", "broken"}, {"found", "none"}, {"mend", "start them"}}));
}

TEST(OneLineTest, NothingOfAMessageBreaksTheTable) {
  EXPECT_EQ(OneLine("a\n\tb\x1b[31m\xff"), "a b [31m");
  EXPECT_EQ(OneLine(std::string(1000, 'x')).size(), 303u);
}

TEST(WebAddressTest, ReadsHostAndPort) {
  const auto read = [](const char* url) {
    const auto address = ParseWebAddress(url);
    return address.ok() ? absl::StrCat(address->tls ? "tls " : "", address->host, " ", address->port) : "wrong";
  };
  EXPECT_EQ(read("http://localhost:9000"), "localhost 9000");
  EXPECT_EQ(read("https://s3.eu-west-1.amazonaws.com/bucket?x#y"), "tls s3.eu-west-1.amazonaws.com 443");
  EXPECT_EQ(read("http://user:secret@host/"), "host 80");
  EXPECT_EQ(read("https://[2001:db8::1]:8443/"), "tls 2001:db8::1 8443");
  EXPECT_EQ(read("http://[::1]"), "::1 80");
  for (const char* url :
       {"", "host", "ftp://host", "http://", "http://:80", "http://host:", "http://host:http", "http://[::1"}) {
    EXPECT_EQ(read(url), "wrong") << url;
  }
}

TEST(DateOfAnswerTest, ReadsTheDateOfTheHeadOnly) {
  const auto date = DateOfAnswer("HTTP/1.1 403 Forbidden\r\nServer: x\r\ndAtE:  Sun, 06 Nov 1994 08:49:37 GMT \r\n\r\n");
  ASSERT_TRUE(date.ok()) << date.status();
  EXPECT_EQ(absl::ToUnixSeconds(*date), 784111777);  // RFC 9110's own example.
  for (const char* head : {"", "HTTP/1.1 200 OK\r\n\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "Date: yesterday\r\n\r\n"}) {
    EXPECT_TRUE(absl::IsNotFound(DateOfAnswer(head).status())) << head;
  }
}

TEST(ClockAheadTest, FullSecondsAndTheWayOfTheAnswerAreNoDifference) {
  const absl::Time server = absl::FromUnixSeconds(1000);
  const auto ahead = [&](double asked, double told) {
    return absl::ToDoubleSeconds(
        ClockAhead({server, absl::FromUnixSeconds(0) + absl::Seconds(asked), absl::FromUnixSeconds(0) + absl::Seconds(told)}));
  };
  EXPECT_EQ(ahead(1000.0, 1000.2), 0);
  EXPECT_EQ(ahead(1000.9, 1001.5), 0);  // The server's clock read anything up to 1001 when it wrote 1000.
  EXPECT_EQ(ahead(995.0, 1000.0), 0);   // A slow answer.
  EXPECT_NEAR(ahead(1011.0, 1012.0), 10, 1e-6);
  EXPECT_NEAR(ahead(989.0, 990.0), -10, 1e-6);
}

TEST(ReadGroupCheckTest, WhatTheRanksSaid) {
  const std::string good =
      R"({"ranks":2,"device":"cpu","why_cpu":"no driver","memory_bytes_per_rank":8589934592,"exchange_seconds":0.01})";
  const auto find = [](const std::vector<Finding>& findings, const std::string& check) {
    for (const Finding& finding : findings) {
      if (finding.check == check) return finding;
    }
    return Finding{};
  };
  std::vector<Finding> findings = ReadGroupCheck(good, {.ranks = 2});
  EXPECT_FALSE(AnyBroken(findings));
  EXPECT_EQ(find(findings, "device").found, "cpu (no driver)");
  EXPECT_EQ(find(findings, "memory").result, Result::kOk);
  // mpirun of another MPI: every process is a group of its own.
  findings = ReadGroupCheck(good, {.ranks = 3});
  EXPECT_EQ(find(findings, "ranks").result, Result::kBroken);
  EXPECT_THAT(find(findings, "ranks").found, HasSubstr("groups of 2, not one of 3"));
  findings = ReadGroupCheck(R"({"ranks":2,"memory_bytes_per_rank":1000000})", {.ranks = 2});
  EXPECT_EQ(find(findings, "memory").result, Result::kWarning);
  for (const char* line : {"", "{", "[]", "{}", R"({"ranks":"two","memory_bytes_per_rank":1})", R"({"ranks":2})"}) {
    EXPECT_TRUE(AnyBroken(ReadGroupCheck(line, {.ranks = 2}))) << line;
  }
}

TEST(MachineChecksTest, Disk) {
  const testing::TempFolder folder;
  EXPECT_EQ(CheckDisk("out", folder.path(), 0).result, Result::kOk);
  const Finding full = CheckDisk("out", folder.path(), int64_t{1} << 60);
  EXPECT_EQ(full.result, Result::kWarning);
  EXPECT_THAT(full.found, HasSubstr(folder.path()));
  EXPECT_NE(full.mend, "");
  EXPECT_EQ(CheckDisk("out", folder.path() + "/missing", 0).result, Result::kBroken);
  // Nothing can be made in /proc, whoever asks.
  EXPECT_EQ(CheckDisk("out", "/proc", 0).result, Result::kBroken);
  EXPECT_NE(CheckDirectIo(folder.path()).result, Result::kBroken);
  EXPECT_EQ(CheckDirectIo("/proc").result, Result::kWarning);
  EXPECT_EQ(CheckSharedMemory(folder.path() + "/missing", 2).result, Result::kBroken);
  EXPECT_EQ(CheckSharedMemory(folder.path(), 1 << 30).result, Result::kWarning);
}

TEST(MachineChecksTest, PortsThatAreTakenAreNamed) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  const std::string taken = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  EXPECT_EQ(CheckPort(taken).result, Result::kBroken);
  EXPECT_THAT(CheckPort(taken).mend, HasSubstr("--listen"));
  close(fd);
  EXPECT_EQ(CheckPort(taken).result, Result::kOk);
  EXPECT_EQ(CheckPort("192.0.2.1:1").result, Result::kBroken);  // No address of this machine.
  EXPECT_EQ(CheckPort("nonsense").result, Result::kBroken);
}

TEST(MachineChecksTest, ADriverThatIsNeeded) {
  const Finding wanted = CheckDriver(false);
  const Finding needed = CheckDriver(true);
  EXPECT_NE(wanted.result, Result::kBroken);
  EXPECT_EQ(needed.result == Result::kBroken, needed.mend != "");
}

TEST(NetworkChecksTest, Storage) {
  const testing::TempFolder folder;
  EXPECT_EQ(CheckStorage(folder.path(), true).result, Result::kOk);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_EQ(CheckStorage(folder.path() + "/missing", false).result, Result::kBroken);
  const Finding wrong = CheckStorage("s3://user:hunter2@bucket", false);
  EXPECT_EQ(wrong.result, Result::kBroken);
  EXPECT_THAT(wrong.found, Not(HasSubstr("hunter2")));
}

TEST(NetworkChecksTest, Clock) {
  EXPECT_EQ(CheckClock("nonsense").result, Result::kBroken);
  EXPECT_EQ(CheckClock("http://127.0.0.1:1").result, Result::kSkipped);
}

}  // namespace
}  // namespace bearing::cli
