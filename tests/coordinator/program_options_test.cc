#include "coordinator/program_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "coordinator/listen_address.h"
#include "coordinator/page_token.h"

namespace bearing::coordinator {
namespace {

using ::testing::HasSubstr;

std::variant<ProgramOptions, ProgramExit> Parse(std::vector<const char*> args, const std::string& store = "/store") {
  args.insert(args.begin(), "bearing-coordinator");
  return ParseProgramOptions(static_cast<int>(args.size()), args.data(), "9.9", store);
}

TEST(ProgramOptionsTest, Defaults) {
  auto parsed = Parse({});
  const auto* options = std::get_if<ProgramOptions>(&parsed);
  ASSERT_NE(options, nullptr);
  EXPECT_EQ(options->server.listen, "127.0.0.1:7070");
  EXPECT_EQ(options->server.store_path, "/store");
  EXPECT_EQ(options->server.scheduler.lease_time.count(), 30);
  EXPECT_EQ(options->server.scheduler.max_attempts, 3);
  EXPECT_EQ(options->server.jobs.version, "9.9");
}

TEST(ProgramOptionsTest, Flags) {
  auto parsed = Parse({"--listen", "[::1]:0", "--store", "x.db", "--port-file", "p", "--lease-seconds", "5", "--max-attempts",
                       "1", "--log-format", "json"});
  const auto* options = std::get_if<ProgramOptions>(&parsed);
  ASSERT_NE(options, nullptr);
  EXPECT_EQ(options->server.listen, "[::1]:0");
  EXPECT_EQ(options->server.store_path, "x.db");
  EXPECT_EQ(options->port_file, "p");
  EXPECT_EQ(options->server.scheduler.lease_time.count(), 5);
  EXPECT_EQ(options->server.scheduler.max_attempts, 1);
  EXPECT_EQ(options->log_format, LogFormat::kJson);
}

TEST(ProgramOptionsTest, VersionGoesToStdout) {
  auto parsed = Parse({"--version"});
  const auto* exit = std::get_if<ProgramExit>(&parsed);
  ASSERT_NE(exit, nullptr);
  EXPECT_EQ(exit->code, 0);
  EXPECT_EQ(exit->out, "bearing-coordinator 9.9\n");
}

TEST(ProgramOptionsTest, WrongUsageIsCode2AndOneClearLine) {
  for (const std::vector<const char*>& args : std::vector<std::vector<const char*>>{{"--lease-seconds", "0"},
                                                                                    {"--max-attempts", "x"},
                                                                                    {"--log-format", "xml"},
                                                                                    {"--unknown"},
                                                                                    {"--listen", "nowhere"},
                                                                                    {"--listen", "0.0.0.0:7070"}}) {
    auto parsed = Parse(args);
    const auto* exit = std::get_if<ProgramExit>(&parsed);
    ASSERT_NE(exit, nullptr) << args.front();
    EXPECT_EQ(exit->code, 2) << args.front();
    EXPECT_FALSE(exit->err.empty()) << args.front();
  }
  auto parsed = Parse({"--listen", "0.0.0.0:7070"});
  EXPECT_THAT(std::get<ProgramExit>(parsed).err, HasSubstr("--insecure-allow-plaintext"));
  EXPECT_TRUE(std::holds_alternative<ProgramOptions>(Parse({"--listen", "0.0.0.0:7070", "--insecure-allow-plaintext"})));
  EXPECT_THAT(std::get<ProgramExit>(Parse({}, "")).err, HasSubstr("--store"));
}

TEST(ProgramOptionsTest, TheStoreFollowsXdg) {
  EXPECT_EQ(DefaultStorePath("/state", "/home/a"), "/state/bearing/jobs.db");
  EXPECT_EQ(DefaultStorePath("", "/home/a"), "/home/a/.local/state/bearing/jobs.db");
  EXPECT_EQ(DefaultStorePath(nullptr, nullptr), "");
}

TEST(ListenAddressTest, KnowsLoopback) {
  for (const char* text : {"127.0.0.1:1", "127.9.9.9:0", "localhost:7070", "[::1]:80"}) {
    ASSERT_TRUE(ParseListenAddress(text).ok()) << text;
    EXPECT_TRUE(ParseListenAddress(text)->loopback) << text;
  }
  for (const char* text : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.0.0.1.example.org:1", "localhost.example.org:1"}) {
    ASSERT_TRUE(ParseListenAddress(text).ok()) << text;
    EXPECT_FALSE(ParseListenAddress(text)->loopback) << text;
  }
  for (const char* text :
       {"", "127.0.0.1", ":7070", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:80", "a:b", "[]:1"}) {
    EXPECT_EQ(ParseListenAddress(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ProgramOptionsTest, OtherMachinesAreServedSecurelyOnly) {
  const std::vector<const char*> tls = {"--listen", "0.0.0.0:0", "--tls-cert", "c", "--tls-key", "k"};
  const auto refusal = [](std::vector<const char*> args) {
    auto parsed = Parse(std::move(args));
    const auto* exit = std::get_if<ProgramExit>(&parsed);
    return exit == nullptr ? "" : exit->err;
  };
  const auto with = [&tls](std::vector<const char*> more) {
    more.insert(more.begin(), tls.begin(), tls.end());
    return more;
  };
  EXPECT_THAT(refusal({"--listen", "0.0.0.0:0", "--token-file", "t"}), HasSubstr("--insecure-allow-plaintext"));
  EXPECT_THAT(refusal({"--worker-listen", "[::]:0"}), HasSubstr("--insecure-allow-plaintext"));
  EXPECT_THAT(refusal(with({})), HasSubstr("--token-file"));
  EXPECT_THAT(refusal(with({"--token-file", "t"})), HasSubstr("--allow-read"));
  EXPECT_EQ(refusal(with({"--token-file", "t", "--allow-read", "/"})), "");
  EXPECT_EQ(refusal({"--listen", "0.0.0.0:0", "--insecure-allow-plaintext"}), "");
  EXPECT_EQ(refusal({"--metrics-listen", "0.0.0.0:0", "--health-listen", "0.0.0.0:0"}), "");
  EXPECT_THAT(refusal({"--tls-cert", "c"}), HasSubstr("belong together"));
  EXPECT_THAT(refusal({"--tls-client-ca", "c"}), HasSubstr("--tls-client-ca"));
  EXPECT_THAT(refusal({"--allow-read", "relative"}), HasSubstr("--allow-read"));
  EXPECT_THAT(refusal({"--metrics-listen", "x"}), HasSubstr("HOST:PORT"));
}

TEST(PageTokenTest, BelongsToItsFilter) {
  const std::string token = MakePageToken({bearing::v1::JOB_STATE_QUEUED, {}}, 42);
  EXPECT_EQ(ParsePageToken(token, {bearing::v1::JOB_STATE_QUEUED, {}}).value(), 42);
  EXPECT_EQ(ParsePageToken("", {bearing::v1::JOB_STATE_QUEUED, {}}).value(), 0);
  EXPECT_EQ(ParsePageToken(token, {bearing::v1::JOB_STATE_FAILED, {}}).status().code(), absl::StatusCode::kInvalidArgument);
  for (const char* junk : {"x", "MS8x", "MS8xLy01", "!!!"}) {
    EXPECT_FALSE(ParsePageToken(junk, {bearing::v1::JOB_STATE_QUEUED, {}}).ok()) << junk;
  }
}

TEST(LogFormatTest, JsonLinesNameTheirJob) {
  std::ostringstream out;
  spdlog::logger logger("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  logger.set_formatter(MakeLogFormatter(LogFormat::kJson));
  logger.info("job changed: job=a-1 state=X attempt=2 group=g other=1 reason=");
  const nlohmann::json line = nlohmann::json::parse(out.str(), nullptr, false);
  EXPECT_EQ(line["job"], "a-1");
  EXPECT_EQ(line["attempt"], 2);
  EXPECT_EQ(line["group"], "g");
  EXPECT_FALSE(line.contains("other"));
  EXPECT_FALSE(line.contains("reason"));
}

TEST(LogFormatTest, JsonLinesParseWhateverIsLogged) {
  std::ostringstream out;
  spdlog::logger logger("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(out));
  logger.set_formatter(MakeLogFormatter(LogFormat::kJson));
  logger.warn("quote \" newline \n byte {}", std::string("\xff"));
  const nlohmann::json line = nlohmann::json::parse(out.str());
  EXPECT_EQ(line["level"], "warning");
  EXPECT_THAT(line["message"].get<std::string>(), HasSubstr("quote \" newline \n byte"));
  EXPECT_TRUE(line.contains("time"));
}

}  // namespace
}  // namespace bearing::coordinator
