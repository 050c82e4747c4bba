// `bearing context`, as a user calls it: one config file through its life.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/program.h"
#include "tests/sharding/temp_folder.h"

namespace bearing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Program;

class ContextTest : public ::testing::Test {
 protected:
  std::string Call(std::vector<std::string> arguments, int code = 0, const std::string& input = "") {
    arguments.insert(arguments.begin(), BEARING_PROGRAM);
    Program program(arguments, {{"XDG_CONFIG_HOME", folder_.path()}}, folder_.path(), input);
    EXPECT_EQ(program.Wait(), code) << ::testing::PrintToString(arguments) << program.Errors();
    errors_ = program.Errors();
    return program.Output();
  }

  testing::TempFolder folder_;
  const std::string config_ = folder_ / "bearing/config.yaml";
  std::string errors_;
};

TEST_F(ContextTest, SetUseShowListDelete) {
  EXPECT_EQ(Call({"context", "list"}), "");
  EXPECT_THAT(errors_, HasSubstr("bearing context set"));
  testing::WriteText(folder_ / "lab.token", "brg_SECRET\n");
  Call({"context", "set", "lab", "--server", "127.0.0.1:1", "--token-file", folder_ / "lab.token"});
  EXPECT_THAT(errors_, HasSubstr("(in use)"));
  Call({"context", "set", "other", "--server", "127.0.0.1:2", "--token-stdin"}, 0, folder_ / "lab.token");
  struct stat about {};
  ASSERT_EQ(stat(config_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  EXPECT_THAT(testing::ReadText(config_), HasSubstr("brg_SECRET"));

  EXPECT_THAT(Call({"context", "list"}),
              AllOf(HasSubstr("*        lab    127.0.0.1:1"), HasSubstr("(not shown)"), Not(HasSubstr("SECRET"))));
  EXPECT_EQ(Call({"context", "list", "-o", "name"}), "lab\nother\n");
  const nlohmann::json all = nlohmann::json::parse(Call({"context", "list", "-o", "json"}), nullptr, false);
  ASSERT_EQ(all["contexts"].size(), 2u);
  EXPECT_EQ(all["contexts"][1]["tokenInConfig"], true);
  EXPECT_THAT(all.dump(), Not(HasSubstr("SECRET")));
  EXPECT_THAT(Call({"context", "show"}), AllOf(HasSubstr("lab.token"), HasSubstr(config_)));
  EXPECT_THAT(Call({"context", "show", "other"}), AllOf(HasSubstr("not shown"), Not(HasSubstr("SECRET"))));
  EXPECT_THAT(Call({"context", "show", "other", "-o", "yaml"}),
              AllOf(HasSubstr("tokenInConfig: true"), Not(HasSubstr("SECRET"))));

  // What is in use decides where calls go; a flag and a variable decide before it.
  Call({"list"}, 5);
  EXPECT_THAT(errors_, HasSubstr("server=127.0.0.1:1"));
  Call({"context", "use", "other"});
  Call({"list"}, 5);
  EXPECT_THAT(errors_, AllOf(HasSubstr("server=127.0.0.1:2"), Not(HasSubstr("SECRET"))));
  Call({"list", "--context", "lab"}, 5);
  EXPECT_THAT(errors_, HasSubstr("server=127.0.0.1:1"));
  // Workers give their ranks a file.
  Call({"workers"}, 2);
  EXPECT_THAT(errors_, HasSubstr("--token-file"));

  // Only what is given changes; an empty value takes a file out.
  Call({"context", "set", "lab", "--tls", "--token-file", ""});
  EXPECT_THAT(Call({"context", "show", "lab", "-o", "json"}),
              AllOf(HasSubstr("\"tls\": true"), Not(HasSubstr("token_file")), HasSubstr("127.0.0.1:1")));

  Call({"context", "delete", "other"});
  EXPECT_EQ(Call({"context", "list", "-o", "name"}), "lab\n");
  Call({"context", "show"}, 3);
}

TEST_F(ContextTest, WrongUseChangesNothing) {
  Call({"context", "set", "lab"}, 2);
  EXPECT_THAT(errors_, HasSubstr("--server: expected HOST:PORT"));
  Call({"context", "set", "a/b", "--server", "h:1"}, 2);
  Call({"context", "set", "lab", "--server", "h:1", "--ca-file", "/nowhere.pem"}, 2);
  EXPECT_THAT(errors_, HasSubstr("--ca-file: no such file"));
  Call({"context", "set", "lab", "--server", "h:1", "--token-stdin"}, 2);
  Call({"context", "use", "lab"}, 3);
  Call({"context", "delete", "lab"}, 3);
  Call({"context"}, 2);
  EXPECT_EQ(testing::ReadText(config_), "");
  Call({"list", "--context", "lab"}, 2);
  EXPECT_THAT(errors_, HasSubstr("no such context"));
}

TEST_F(ContextTest, ABrokenConfigStopsOnlyCommandsThatNeedAServer) {
  Call({"context", "set", "lab", "--server", "h:1"});
  testing::WriteText(config_, "contexts:\n  lab:\n    server: h\n");
  Call({"list"}, 2);
  EXPECT_THAT(errors_, HasSubstr(config_ + ":3: contexts.lab.server"));
  Call({"context", "list"}, 2);
  Call({"completion", "bash"});
  Call({"list", "--server", "127.0.0.1:1"}, 5);
}

}  // namespace
}  // namespace bearing
