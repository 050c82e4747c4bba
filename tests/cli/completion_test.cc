#include "cli/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

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

  CLI::App app_;
  std::string server_;
  bool fast_ = false;
};

TEST_F(CompletionTest, BashScriptCompletes) {
  const bearing::testing::TempFolder folder;
  bearing::testing::WriteText(folder / "script",
                              CompletionScript(app_, "bash") +
                                  "COMP_WORDS=(bearing run --f); COMP_CWORD=2; _bearing; echo ${COMPREPLY[@]}\n"
                                  "COMP_WORDS=(bearing l); COMP_CWORD=1; _bearing; echo ${COMPREPLY[@]}\n"
                                  "COMP_WORDS=(bearing token c); COMP_CWORD=2; _bearing; echo ${COMPREPLY[@]}\n"
                                  "COMP_WORDS=(bearing token create --sc); COMP_CWORD=3; _bearing; echo ${COMPREPLY[@]}\n");
  const std::string command = "bash " + (folder / "script") + " > " + (folder / "out");
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(bearing::testing::ReadText(folder / "out"), "--fast\nlist\ncreate\n--scope\n");
}

TEST_F(CompletionTest, BashScriptAsksForNames) {
  const bearing::testing::TempFolder folder;
  bearing::testing::WriteText(folder / "script",
                              CompletionScript(app_, "bash") +
                                  "bearing() { case $* in 'list -o name') echo 'job-a job-b other' ;; 'context list -o name') "
                                  "echo 'here lab' ;; esac | "
                                  "tr ' ' '\\n'; }\n"
                                  "COMP_WORDS=(bearing watch job); COMP_CWORD=2; _bearing; echo ${COMPREPLY[@]}\n"
                                  "COMP_WORDS=(bearing context use l); COMP_CWORD=3; _bearing; echo ${COMPREPLY[@]}\n"
                                  "COMP_WORDS=(bearing watch --context h); COMP_CWORD=3; _bearing; echo ${COMPREPLY[@]}\n"
                                  // No such job: a file, as everywhere else.
                                  "COMP_WORDS=(bearing watch /et); COMP_CWORD=2; _bearing; echo ${COMPREPLY[@]}\n");
  const std::string command = "bash " + (folder / "script") + " > " + (folder / "out");
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(bearing::testing::ReadText(folder / "out"), "job-a job-b\nlab\nhere\n/etc\n");
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
