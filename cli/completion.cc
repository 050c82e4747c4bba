#include "cli/completion.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace bearing::cli {
namespace {

std::vector<std::string> Flags(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_snames()) flags.push_back(absl::StrCat("-", name));
    for (const std::string& name : option->get_lnames()) flags.push_back(absl::StrCat("--", name));
  }
  return flags;
}

std::vector<const CLI::App*> Commands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::string Names(const CLI::App& app) {
  return absl::StrJoin(Commands(app), " ", [](std::string* out, const CLI::App* command) { out->append(command->get_name()); });
}

// The arguments with which `bearing` lists what the command's positional argument, or that of a command below it, may be; empty
// when it cannot.
std::string NamesFrom(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    if (option->get_type_name() == kJobType) return "list -o name";
    if (option->get_type_name() == kContextType) return "context list -o name";
  }
  for (const CLI::App* inner : Commands(app)) {
    if (std::string names = NamesFrom(*inner); !names.empty()) return names;
  }
  return "";
}

std::string Bash(const CLI::App& app) {
  std::string out = "_bearing() {\n  local word=${COMP_WORDS[COMP_CWORD]} command=\"\" inner=\"\" names=\"\" i\n";
  absl::StrAppend(&out, "  local commands=\"", Names(app), "\" flags=\"", absl::StrJoin(Flags(app), " "), "\"\n");
  absl::StrAppend(&out, "  for ((i = 1; i < COMP_CWORD; i++)); do\n",
                  "    [[ \" $commands \" == *\" ${COMP_WORDS[i]} \"* ]] && command=${COMP_WORDS[i]} && break\n  done\n");
  absl::StrAppend(&out, "  case $command in\n");
  for (const CLI::App* command : Commands(app)) {
    std::vector<std::string> flags = Flags(*command);
    for (const CLI::App* inner : Commands(*command)) {
      for (std::string& flag : Flags(*inner)) flags.push_back(std::move(flag));
    }
    absl::StrAppend(&out, "    ", command->get_name(), ") flags+=\" ", absl::StrJoin(flags, " "), "\" inner=\"",
                    Names(*command), "\" names=\"", NamesFrom(*command), "\" ;;\n");
  }
  absl::StrAppend(
      &out, "  esac\n  [[ ${COMP_WORDS[COMP_CWORD - 1]} == --context ]] && names=\"context list -o name\"\n",
      "  if [[ $word == -* ]]; then\n    COMPREPLY=($(compgen -W \"$flags\" -- \"$word\"))\n",
      "  elif [[ -z $command ]]; then\n    COMPREPLY=($(compgen -W \"$commands\" -- \"$word\"))\n",
      "  elif [[ -n $inner && ${COMP_WORDS[COMP_CWORD - 1]} == \"$command\" ]]; then\n",
      "    COMPREPLY=($(compgen -W \"$inner\" -- \"$word\"))\n", "  else\n    COMPREPLY=()\n",
      // compgen expands what it is given: of names, which come from a server, only characters that mean nothing to it.
      "    [[ -n $names ]] && names=$(\"${COMP_WORDS[0]}\" $names 2>/dev/null | tr -cd 'A-Za-z0-9._\\n-') &&\n",
      "      COMPREPLY=($(compgen -W \"$names\" -- \"$word\"))\n",
      "    [[ ${#COMPREPLY[@]} == 0 ]] && COMPREPLY=($(compgen -f -- \"$word\"))\n  fi\n}\ncomplete -o filenames -F _bearing "
      "bearing\n");
  return out;
}

// zsh reads the bash script through its own adapter.
std::string Zsh(const CLI::App& app) {
  return absl::StrCat("#compdef bearing\nautoload -U +X bashcompinit && bashcompinit\n", Bash(app));
}

std::string FishQuote(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

void AppendFishFlags(const CLI::App& app, const std::string& condition, std::string& out) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_snames().empty() && option->get_lnames().empty()) continue;
    absl::StrAppend(&out, "complete -c bearing", condition);
    for (const std::string& name : option->get_snames()) absl::StrAppend(&out, " -s ", name);
    for (const std::string& name : option->get_lnames()) absl::StrAppend(&out, " -l ", name);
    // Number of values: a flag takes none.
    if (option->get_items_expected_max() > 0) out += " -r";
    absl::StrAppend(&out, " -d ", FishQuote(option->get_description()), "\n");
  }
}

std::string Fish(const CLI::App& app) {
  std::string out;
  AppendFishFlags(app, "", out);
  for (const CLI::App* command : Commands(app)) {
    absl::StrAppend(&out, "complete -c bearing -f -n __fish_use_subcommand -a ", command->get_name(), " -d ",
                    FishQuote(command->get_description()), "\n");
    const std::string seen = absl::StrCat("__fish_seen_subcommand_from ", command->get_name());
    AppendFishFlags(*command, absl::StrCat(" -n '", seen, "'"), out);
    if (const std::string names = NamesFrom(*command); !names.empty()) {
      absl::StrAppend(&out, "complete -c bearing -n '", seen, "' -a '(bearing ", names, " 2>/dev/null)'\n");
    }
    for (const CLI::App* inner : Commands(*command)) {
      absl::StrAppend(&out, "complete -c bearing -f -n '", seen, "' -a ", inner->get_name(), " -d ",
                      FishQuote(inner->get_description()), "\n");
      AppendFishFlags(*inner, absl::StrCat(" -n '", seen, "; and __fish_seen_subcommand_from ", inner->get_name(), "'"), out);
    }
  }
  return out;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, std::string_view shell) {
  if (shell == "zsh") return Zsh(app);
  if (shell == "fish") return Fish(app);
  return Bash(app);
}

}  // namespace bearing::cli
