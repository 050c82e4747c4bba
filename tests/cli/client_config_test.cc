#include "cli/client_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <string>

#include "cli/connection.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::cli {
namespace {

using bearing::testing::TempFolder;
using bearing::testing::WriteText;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kConfig[] = R"(current_context: lab
contexts:
  lab:
    server: lab.example:7070
    ca_file: certificates/ca.pem
    token_file: /etc/lab.token
  here:
    server: 127.0.0.1:7071
)";

Variables From(const std::map<std::string, std::string>& values) {
  return [values](const char* name) {
    const auto found = values.find(name);
    return found == values.end() ? std::string() : found->second;
  };
}

TEST(ClientConfigTest, ReadsContextsAndResolvesPathsAtItsFolder) {
  const absl::StatusOr<ClientConfig> config = ParseClientConfig(kConfig, "/home/a/config.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->current, "lab");
  ASSERT_EQ(config->contexts.size(), 2u);
  EXPECT_EQ(config->contexts[0].server, "lab.example:7070");
  EXPECT_EQ(config->contexts[0].security.ca_file, "/home/a/certificates/ca.pem");
  EXPECT_EQ(config->contexts[0].security.token_file, "/etc/lab.token");
}

TEST(ClientConfigTest, MistakesNameFileLineAndFieldAndNeverTheSecret) {
  struct Case {
    const char* text;
    const char* message;
  };
  for (const Case& wrong : {
           Case{"contexts:\n  lab:\n    sever: a:1\n", "c.yaml:3: contexts.lab.sever: unknown key; did you mean \"server\"?"},
           Case{"contexts:\n  lab:\n    server: nowhere\n", "c.yaml:3: contexts.lab.server: expected HOST:PORT"},
           Case{"contexts:\n  lab:\n    tls: true\n", "contexts.lab.server: missing"},
           Case{"contexts:\n  lab:\n    server: a:1\n    tls: SECRET\n", "c.yaml:4: contexts.lab.tls: expected true or false"},
           Case{"contexts:\n  lab:\n    server: a:1\n    token: [SECRET]\n",
                "c.yaml:4: contexts.lab.token: expected text, found a list"},
           Case{"contexts:\n  lab: SECRET\n", "c.yaml:2: contexts.lab: expected a map, found text"},
           Case{"contexts:\n  lab:\n    server: a:1\n    token: SECRET\n    token_file: f\n", "both token and token_file"},
           Case{"contexts:\n  lab:\n    server: a:1\n    cert_file: f\n", "needs both cert_file and key_file"},
           Case{"contexts:\n  lab:\n    server: a:1\n    token: SECRET\n    token: SECRET\n",
                "c.yaml:5: contexts.lab.token: given twice, first on line 4"},
           Case{"contexts:\n  \"a b\": {server: \"a:1\"}\n", "expected a name of 1 to 63"},
           Case{"contexts:\n  lab:\n    server: a:1\ncurrent_context: lap\n",
                "c.yaml:4: current_context: no such context: context=lap file=c.yaml; did you mean lab?"},
           Case{"kind: Job\n", "c.yaml:1: kind: expected Config"},
           Case{"contexts: [\n", "c.yaml:"},
       }) {
    const absl::StatusOr<ClientConfig> config = ParseClientConfig(wrong.text, "c.yaml");
    ASSERT_FALSE(config.ok()) << wrong.text;
    EXPECT_THAT(std::string(config.status().message()), AllOf(HasSubstr(wrong.message), Not(HasSubstr("SECRET"))));
  }
}

TEST(ClientConfigTest, AFileWithATokenMustBeItsOwnersAlone) {
  const TempFolder folder;
  const std::string path = folder / "config.yaml";
  WriteText(path, "contexts:\n  lab:\n    server: a:1\n    token: SECRET\n");
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  const absl::Status open = LoadClientConfig(path).status();
  EXPECT_THAT(std::string(open.message()), AllOf(HasSubstr(path), HasSubstr("contexts.lab.token"), HasSubstr("chmod 600"),
                                                 HasSubstr("0640"), Not(HasSubstr("SECRET"))));
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  EXPECT_TRUE(LoadClientConfig(path).ok());
  // Without a token anybody may read it.
  WriteText(path, kConfig);
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  EXPECT_TRUE(LoadClientConfig(path).ok());
}

TEST(ClientConfigTest, WhatIsSavedIsReadAgain) {
  const TempFolder folder;
  const std::string path = folder / "deep/er/config.yaml";
  ClientConfig config{.path = path, .exists = false, .current = "b", .contexts = {}};
  config.contexts.push_back({.name = "1.2", .server = "[::1]:1", .security = {.tls = true, .ca_file = "/a b/\"ca\""}});
  config.contexts.push_back({.name = "b", .server = "h:2", .security = {.token = "x#: y", .allow_plaintext = true}});
  ASSERT_TRUE(SaveClientConfig(config).ok());
  struct stat about {};
  ASSERT_EQ(stat(path.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  const absl::StatusOr<ClientConfig> again = LoadClientConfig(path);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->exists);
  EXPECT_EQ(again->current, "b");
  ASSERT_EQ(again->contexts.size(), 2u);
  EXPECT_EQ(again->contexts[0].name, "1.2");
  EXPECT_EQ(again->contexts[0].server, "[::1]:1");
  EXPECT_EQ(again->contexts[0].security.ca_file, "/a b/\"ca\"");
  EXPECT_TRUE(again->contexts[0].security.tls);
  EXPECT_EQ(again->contexts[1].security.token, "x#: y");
  EXPECT_TRUE(again->contexts[1].security.allow_plaintext);
}

TEST(ClientConfigTest, PathFollowsTheEnvironment) {
  EXPECT_EQ(ClientConfigPath(From({{"BEARING_CONFIG", "/c"}, {"XDG_CONFIG_HOME", "/x"}, {"HOME", "/h"}})), "/c");
  EXPECT_EQ(ClientConfigPath(From({{"XDG_CONFIG_HOME", "/x"}, {"HOME", "/h"}})), "/x/bearing/config.yaml");
  EXPECT_EQ(ClientConfigPath(From({{"HOME", "/h"}})), "/h/.config/bearing/config.yaml");
  EXPECT_EQ(ClientConfigPath(From({})), "");
}

class ConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    WriteText(path_, kConfig);
    // WithEnvironment reads the environment of the process.
    for (const char* name : {"BEARING_CA_FILE", "BEARING_CERT_FILE", "BEARING_KEY_FILE", "BEARING_TOKEN_FILE", "BEARING_TLS"}) {
      unsetenv(name);
    }
  }

  Globals Resolve(Globals globals, std::map<std::string, std::string> variables = {}) {
    variables["BEARING_CONFIG"] = path_;
    const absl::Status status = ResolveConnection(From(variables), globals);
    EXPECT_TRUE(status.ok()) << status;
    return globals;
  }

  TempFolder folder_;
  const std::string path_ = folder_ / "config.yaml";
};

Globals WithFlags(const std::string& server, const std::string& context) {
  Globals globals;
  globals.server = server;
  globals.context = context;
  return globals;
}

TEST_F(ConnectionTest, TheContextInUseServesWhereNothingElseIsSaid) {
  const Globals globals = Resolve({});
  EXPECT_EQ(globals.server, "lab.example:7070");
  EXPECT_TRUE(globals.server_given);
  EXPECT_EQ(globals.security.token_file, "/etc/lab.token");
}

TEST_F(ConnectionTest, FlagBeatsEnvironmentBeatsContext) {
  EXPECT_EQ(Resolve(WithFlags("flag:1", ""), {{"BEARING_SERVER", "variable:1"}}).server, "flag:1");
  EXPECT_EQ(Resolve({}, {{"BEARING_SERVER", "variable:1"}}).server, "variable:1");
  EXPECT_EQ(Resolve({}, {{"BEARING_CONTEXT", "here"}}).server, "127.0.0.1:7071");
  EXPECT_EQ(Resolve(WithFlags("", "here"), {{"BEARING_CONTEXT", "lab"}}).server, "127.0.0.1:7071");
  EXPECT_EQ(Resolve(WithFlags("", "here"), {{"BEARING_SERVER", "variable:1"}}).server, "127.0.0.1:7071");
  EXPECT_EQ(Resolve(WithFlags("flag:1", "here")).server, "flag:1");
  Globals globals;
  globals.security.token_file = "/flag.token";
  EXPECT_EQ(Resolve(globals).security.token_file, "/flag.token");
  setenv("BEARING_TOKEN_FILE", "/variable.token", 1);
  EXPECT_EQ(Resolve({}).security.token_file, "/variable.token");
  EXPECT_EQ(Resolve(WithFlags("", "lab")).security.token_file, "/etc/lab.token");
  unsetenv("BEARING_TOKEN_FILE");
}

TEST_F(ConnectionTest, CredentialsOfAContextGoToItsOwnServerAlone) {
  EXPECT_EQ(Resolve(WithFlags("other:1", "")).security.token_file, "");
  EXPECT_EQ(Resolve({}, {{"BEARING_SERVER", "other:1"}}).security.token_file, "");
  EXPECT_EQ(Resolve({}, {{"BEARING_SERVER", "other:1"}, {"BEARING_CONTEXT", "lab"}}).security.token_file, "");
  EXPECT_EQ(Resolve(WithFlags("other:1", ""), {{"BEARING_CONTEXT", "lab"}}).security.token_file, "");
  // Both said in so many words: a tunnel to the same server, say.
  EXPECT_EQ(Resolve(WithFlags("other:1", "lab")).security.token_file, "/etc/lab.token");
}

TEST_F(ConnectionTest, CredentialsOfTheEnvironmentGoToItsOwnServerAlone) {
  setenv("BEARING_TOKEN_FILE", "/variable.token", 1);
  setenv("BEARING_CA_FILE", "/variable.pem", 1);
  const Globals other = Resolve(WithFlags("", "here"), {{"BEARING_SERVER", "other:1"}});
  EXPECT_EQ(other.server, "127.0.0.1:7071");
  EXPECT_EQ(other.security.token_file, "");
  EXPECT_EQ(other.security.ca_file, "");
  // Where it names none, they are for any.
  EXPECT_EQ(Resolve(WithFlags("", "here")).security.token_file, "/variable.token");
  EXPECT_EQ(Resolve(WithFlags("", "here"), {{"BEARING_SERVER", "127.0.0.1:7071"}}).security.ca_file, "/variable.pem");
  unsetenv("BEARING_TOKEN_FILE");
  unsetenv("BEARING_CA_FILE");
}

TEST_F(ConnectionTest, WithoutAConfigItIsLoopback) {
  Globals globals;
  ASSERT_TRUE(ResolveConnection(From({{"HOME", folder_.path()}}), globals).ok());
  EXPECT_EQ(globals.server, "127.0.0.1:7070");
  EXPECT_FALSE(globals.server_given);
}

TEST_F(ConnectionTest, WrongNamesAreErrors) {
  Globals globals;
  EXPECT_THAT(std::string(ResolveConnection(From({{"BEARING_CONFIG", folder_ / "none"}}), globals).message()),
              HasSubstr("BEARING_CONFIG: no such file"));
  globals.context = "labb";
  EXPECT_THAT(std::string(ResolveConnection(From({{"BEARING_CONFIG", path_}}), globals).message()),
              AllOf(HasSubstr("--context: no such context"), HasSubstr("did you mean lab?")));
}

}  // namespace
}  // namespace bearing::cli
