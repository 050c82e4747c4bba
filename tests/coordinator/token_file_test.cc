// Token files, and to whom a client sends its token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "rpc/client_connection.h"
#include "rpc/tokens.h"
#include "tests/coordinator/fakes.h"

namespace bearing::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(TokenFileTest, ReadsWhatItWrites) {
  const rpc::TokenEntry entry{"alice", rpc::kScopeSubmit | rpc::kScopeWorker, absl::FromUnixSeconds(1'800'000'000),
                              rpc::HashOfToken("x")};
  const auto entries = rpc::ParseTokenFile("# people\n\n" + rpc::FormatTokenLine(entry) + "\n", "f");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 1u);
  EXPECT_EQ(entries->front().name, "alice");
  EXPECT_EQ(entries->front().scopes, entry.scopes);
  EXPECT_EQ(entries->front().expires, entry.expires);
  EXPECT_EQ(entries->front().sha256, entry.sha256);
}

TEST(TokenFileTest, NamesTheLineButNotItsContent) {
  const std::string hash(64, 'a');
  for (const std::string& line : std::vector<std::string>{
           "alice", "alice read never abc", "alice read never " + std::string(64, 'g'), "alice write never " + hash,
           "alice read tomorrow " + hash, "a/b read never " + hash, "alice read never " + hash + " secret-word"}) {
    const auto entries = rpc::ParseTokenFile("\n" + line, "file");
    EXPECT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_THAT(std::string(entries.status().message()), ::testing::AllOf(HasSubstr("line=2"), Not(HasSubstr("secret-word"))));
  }
  const std::string twice = "a read never " + hash + "\nb read never " + hash;
  EXPECT_THAT(std::string(rpc::ParseTokenFile(twice, "file").status().message()), HasSubstr("the token is there already"));
}

TEST(TokenFileTest, TokensDiffer) {
  const std::string a = rpc::NewToken().value();
  EXPECT_NE(a, rpc::NewToken().value());
  EXPECT_EQ(a.size(), 4u + 43u) << a;
}

TEST(ClientConnectionTest, SendsNoTokenInTheClearToOthers) {
  TempDir dir;
  std::ofstream(dir / "token") << "brg_x\n";
  EXPECT_TRUE(rpc::ClientConnection::Open("127.0.0.1:1", {.token_file = dir / "token"}).ok());
  EXPECT_TRUE(rpc::ClientConnection::Open("[::1]:1", {.token_file = dir / "token"}).ok());
  EXPECT_FALSE(rpc::ClientConnection::Open("example.org:1", {.token_file = dir / "token"}).ok());
  EXPECT_FALSE(rpc::ClientConnection::Open("127.0.0.1.example.org:1", {.token_file = dir / "token"}).ok());
  EXPECT_TRUE(rpc::ClientConnection::Open("example.org:1", {.token_file = dir / "token", .allow_plaintext = true}).ok());
  EXPECT_EQ(rpc::ClientConnection::Open("127.0.0.1:1", {.token_file = dir / "none"}).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace bearing::coordinator
