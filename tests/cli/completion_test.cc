#include "cli/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/sharding/temp_folder.h"

namespace bearing::cli {
namespace {

using ::testing::HasSubstr;

class CompletionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    app_.add_option("--server", server_, "Server");
    CLI::App* run = app_.add_subcommand("run", "Run the user's job");
    run->add_flag("--fast", fast_, "Quickly");
    app_.add_subcommand("list", "List jobs");
    CLI::App* token = app_.add_subcommand("token", "Tokens");
    token->add_subcommand("create", "Make a token")->add_option("--scope", server_, "Scope");
    app_.add_subcommand("watch", "Watch")->add_option("NAME", server_, "Job")->type_name(kJobType);
    app_.add_subcommand("context", "Contexts")
        ->add_subcommand("use", "Use")
        ->add_option("NAME", server_)
        ->type_name(kContextType);
  }

  // What bash offers at the end of each line behind "bearing"; `program` is what it is asked in bearing's place.
  std::string Complete(const std::vector<std::string>& lines, const std::string& program = "") {
    const bearing::testing::TempFolder folder;
    std::string script = CompletionScript(app_, "bash") + program;
    for (const std::string& line : lines) {
      script += "COMP_WORDS=(bearing " + line + "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _bearing; echo ${COMPREPLY[@]}\n";
    }
    bearing::testing::WriteText(folder / "script", script);
    EXPECT_EQ(std::system(("bash " + (folder / "script") + " > " + (folder / "out")).c_str()), 0);
    return bearing::testing::ReadText(folder / "out");
  }

  CLI::App app_;
  std::string server_;
  bool fast_ = false;
};

TEST_F(CompletionTest, BashScriptCompletes) {
  EXPECT_EQ(Complete({"run --f", "l", "token c", "token create --sc"}), "--fast\nlist\ncreate\n--scope\n");
}

TEST_F(CompletionTest, BashScriptAsksForNames) {
  const std::string program =
      "bearing() { case $* in 'list -o name') echo 'job-a job-b other' ;; 'context list -o name') echo 'here lab' ;; esac |"
      " tr ' ' '\\n'; }\n";
  // No such job: a file, as everywhere else.
  EXPECT_EQ(Complete({"watch job", "context use l", "watch --context h", "watch /et"}, program),
            "job-a job-b\nlab\nhere\n/etc\n");
}

TEST_F(CompletionTest, FishQuotesDescriptions) {
  const std::string script = CompletionScript(app_, "fish");
  EXPECT_THAT(script, HasSubstr("-n '__fish_seen_subcommand_from watch' -a '(bearing list -o name 2>/dev/null)'"));
  EXPECT_THAT(script, HasSubstr("-a run -d 'Run the user\\'s job'"));
  EXPECT_THAT(script, HasSubstr("-l server -r -d 'Server'"));
  EXPECT_THAT(script, HasSubstr("'__fish_seen_subcommand_from run' -l fast -d 'Quickly'"));
  EXPECT_THAT(script, HasSubstr("'__fish_seen_subcommand_from token' -a create -d 'Make a token'"));
}

TEST_F(CompletionTest, ZshUsesTheBashScript) {
  EXPECT_THAT(CompletionScript(app_, "zsh"), HasSubstr("#compdef bearing"));
  EXPECT_THAT(CompletionScript(app_, "zsh"), HasSubstr("complete -o filenames -F _bearing bearing"));
}

}  // namespace
}  // namespace bearing::cli
