// The whole tree of commands: help with examples that parse, and the manual page made of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cli/command.h"
#include "cli/man_page.h"
#include "tests/sharding/temp_folder.h"

namespace bearing::cli {
namespace {

using ::testing::HasSubstr;

void ForEach(const CLI::App& app, const std::string& above,
             const std::function<void(const CLI::App&, const std::string&)>& see) {
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string name = absl::StrCat(above, " ", command->get_name());
    see(*command, name);
    ForEach(*command, name, see);
  }
}

// The lines behind "Example:".
std::vector<std::string> Examples(const std::string& footer) {
  std::vector<std::string> examples;
  bool within = false;
  for (const absl::string_view line : absl::StrSplit(footer, '\n')) {
    if (line == "Example:") {
      within = true;
    } else if (within && absl::StartsWith(line, "  ")) {
      // A line that ends in a backslash goes on in the next one.
      if (!examples.empty() && examples.back().ends_with('\\')) {
        examples.back().back() = ' ';
        absl::StrAppend(&examples.back(), line.substr(2));
      } else {
        examples.emplace_back(line.substr(2));
      }
    } else {
      within = false;
    }
  }
  return examples;
}

// Words of a shell line, with quotes; words that end a command end the list: | && > < ; ).
std::vector<std::vector<std::string>> BearingCalls(const std::string& line) {
  std::vector<std::vector<std::string>> calls;
  std::vector<std::string> words;
  std::string word;
  bool any = false;
  char quote = 0;
  const auto end_word = [&] {
    if (any) words.push_back(word);
    word.clear();
    any = false;
  };
  const auto end_command = [&] {
    end_word();
    if (!words.empty() && words[0] == "bearing") calls.emplace_back(words.begin() + 1, words.end());
    words.clear();
  };
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote != 0) {
      if (c == quote)
        quote = 0;
      else
        word += c;
      continue;
    }
    if (c == '\'' || c == '"') {
      quote = c;
      any = true;
    } else if (c == ' ') {
      end_word();
    } else if (std::string_view("|&;()<>").find(c) != std::string_view::npos) {
      // `name=$(` and `source <(`: what was before is no call of ours.
      if (c == '(' && (absl::StrContains(word, '$') || words.empty() || words[0] != "bearing"))
        words.clear(), word.clear(), any = false;
      // A file name follows, no command.
      const bool to_file = c == '>' && words.size() > 1;
      end_command();
      if (to_file) break;
    } else {
      word += c;
      any = true;
    }
  }
  EXPECT_EQ(quote, 0) << line;
  end_command();
  return calls;
}

TEST(CommandLineTest, EveryCommandHasExamplesThatParse) {
  CommandLine tree;
  BuildCommandLine(tree);
  int commands = 0;
  int calls = 0;
  ForEach(tree.app, "bearing", [&](const CLI::App& command, const std::string& name) {
    ++commands;
    const std::vector<std::string> examples = Examples(command.get_footer());
    EXPECT_FALSE(examples.empty()) << name << ": no line \"Example:\" with examples behind it";
    bool own = false;
    for (const std::string& example : examples) {
      for (std::vector<std::string> words : BearingCalls(example)) {
        ++calls;
        own = own || absl::StrCat("bearing ", absl::StrJoin(words, " "), " ").starts_with(name + " ");
        CommandLine line;
        BuildCommandLine(line);
        std::reverse(words.begin(), words.end());  // As CLI11 wants them.
        try {
          line.app.parse(words);
          EXPECT_TRUE(line.action) << example;
        } catch (const CLI::ValidationError& error) {
          // The reader's own files are not there.
          EXPECT_THAT(error.what(), HasSubstr("does not exist")) << name << ": " << example;
        } catch (const CLI::ParseError& error) {
          ADD_FAILURE() << name << ": " << example << ": " << error.what();
        }
      }
    }
    EXPECT_TRUE(own) << name << ": no example calls it";
    EXPECT_NE(command.get_description(), "") << name;
  });
  EXPECT_GE(commands, 30);
  EXPECT_GE(calls, 45);
}

TEST(CommandLineTest, HelpOfTheProgramNamesEveryCommandAndExitCode) {
  CommandLine tree;
  BuildCommandLine(tree);
  const std::string help = tree.app.help();
  for (const CLI::App* command : tree.app.get_subcommands([](const CLI::App*) { return true; })) {
    EXPECT_THAT(help, HasSubstr(absl::StrCat("\n  ", command->get_name(), " ")));
  }
  for (const char* code : {"0  ", "1  ", "2  ", "3  ", "4  ", "5  ", "6  ", "7  ", "130  "}) EXPECT_THAT(help, HasSubstr(code));
}

TEST(ManPageTest, HasEveryCommandAndGroffTakesItWithoutAWarning) {
  CommandLine tree;
  BuildCommandLine(tree);
  const std::string page = ManPage(tree.app);
  ForEach(tree.app, "bearing", [&](const CLI::App& command, const std::string& name) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat(".SS ", name, "\n")));
  });
  for (const char* section :
       {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "EXIT STATUS", "ENVIRONMENT", "FILES"}) {
    EXPECT_THAT(page, HasSubstr(absl::StrCat(".SH ", section, "\n")));
  }
  if (std::system("groff --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "groff is not installed: the page was not typeset";
  const bearing::testing::TempFolder folder;
  bearing::testing::WriteText(folder / "bearing.1", page);
  const std::string command = absl::StrCat("groff -man -ww -Tutf8 -P-c -P-b -P-u ", folder / "bearing.1", " > ", folder / "out",
                                           " 2> ", folder / "err");
  EXPECT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(bearing::testing::ReadText(folder / "err"), "");
  const std::string shown = bearing::testing::ReadText(folder / "out");
  // Dashes that can be copied, lines of examples as they are, and nothing lost to macros.
  EXPECT_THAT(shown, HasSubstr("bearing list -o json | jq -r '.jobs[].name'"));
  EXPECT_THAT(shown, HasSubstr("--token-file"));
  EXPECT_THAT(shown, HasSubstr("130"));
}

}  // namespace
}  // namespace bearing::cli
