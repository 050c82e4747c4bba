#include "cli/man_page.h"

#include <cctype>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cli/exit_code.h"
#include "sharding/concat.h"

namespace bearing::cli {
namespace {

// Text that troff takes literally: no macro at the start of a line, no escape, dashes that can be copied.
std::string Troff(std::string_view text) {
  std::string out;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    line_start = c == '\n';
    switch (c) {
      case '\\':
        out += "\\e";
        break;
      case '-':
        out += "\\-";
        break;
      case '~':
        out += "\\(ti";
        break;
      case '^':
        out += "\\(ha";
        break;
      case '`':
        out += "\\(ga";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string Bold(std::string_view text) { return Concat("\\fB", Troff(text), "\\fR"); }
std::string Italic(std::string_view text) { return Concat("\\fI", Troff(text), "\\fR"); }

// "--ranks INT", "-o, --output TEXT", "NAME".
std::string Names(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back(Bold("-" + name));
  for (const std::string& name : option.get_lnames()) names.push_back(Bold("--" + name));
  if (names.empty()) return Italic(option.get_name());
  const std::string all = absl::StrJoin(names, ", ");
  return option.get_items_expected_max() > 0 ? Concat(all, " ", Italic(option.get_type_name())) : all;
}

void AppendOptions(const CLI::App& app, std::string& out) {
  for (const CLI::Option* option : app.get_options()) {
    if (option == app.get_help_ptr()) continue;
    std::string about = option->get_description();
    if (const std::string value = option->get_default_str(); !value.empty()) absl::StrAppend(&about, " (default: ", value, ")");
    absl::StrAppend(&out, ".TP\n", Names(*option), "\n", Troff(about), "\n");
  }
}

// Paragraphs are filled; indented lines keep their form.
void AppendFooter(const std::string& footer, std::string& out) {
  bool as_is = false;
  for (const absl::string_view line : absl::StrSplit(footer, '\n')) {
    const bool indented = absl::StartsWith(line, "  ");
    if (indented != as_is) absl::StrAppend(&out, indented ? ".RS 4\n.nf\n" : ".fi\n.RE\n");
    as_is = indented;
    if (line.empty()) {
      out += ".PP\n";
    } else {
      absl::StrAppend(&out, Troff(std::string(indented ? line.substr(2) : line)), "\n");
    }
  }
  if (as_is) out += ".fi\n.RE\n";
}

std::string Synopsis(const CLI::App& app, const std::string& name) {
  std::string out = Bold(name);
  bool options = false;
  std::string positionals;
  for (const CLI::Option* option : app.get_options()) {
    if (option == app.get_help_ptr()) continue;
    if (!option->get_positional()) {
      options = true;
      continue;
    }
    std::string text = Italic(option->get_name());
    if (option->get_items_expected_max() > 1) text += " ...";
    absl::StrAppend(&positionals, " ", option->get_required() ? text : Concat("[", text, "]"));
  }
  if (options) absl::StrAppend(&out, " [", Italic("options"), "]");
  return out + positionals;
}

std::vector<const CLI::App*> CommandsOf(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

void AppendCommand(const CLI::App& command, const std::string& above, std::string& out) {
  const std::string name = Concat(above, " ", command.get_name());
  absl::StrAppend(&out, ".SS ", Troff(name), "\n", Synopsis(command, name), "\n.PP\n", Troff(command.get_description()), ".\n");
  AppendOptions(command, out);
  out += ".PP\n";
  AppendFooter(command.get_footer(), out);
  for (const CLI::App* inner : CommandsOf(command)) AppendCommand(*inner, name, out);
}

struct Named {
  const char* name;
  const char* about;
};

constexpr Named kEnvironment[] = {
    {"BEARING_SERVER", "HOST:PORT of the server, as --server"},
    {"BEARING_CONTEXT", "Context with the server, as --context"},
    {"BEARING_CONFIG", "File with the contexts"},
    {"BEARING_CA_FILE, BEARING_CERT_FILE, BEARING_KEY_FILE, BEARING_TOKEN_FILE",
     "As --ca-file, --cert, --key and --token-file"},
    {"BEARING_TLS", "1: encrypt, as --tls"},
    {"NO_COLOR, CI, TERM", "No colours; no progress bar, but a line for each change"},
};

constexpr Named kFiles[] = {
    {"$XDG_CONFIG_HOME/bearing/config.yaml, ~/.config/bearing/config.yaml", "Contexts: servers and credentials under names"},
    {"OUT/.bearing/service/", "Logs of `bearing run`"},
};

}  // namespace

std::string ManPage(const CLI::App& app) {
  const std::string& name = app.get_name();
  std::string out = Concat(".TH BEARING 1 \"\" \"bearing ", BEARING_VERSION, "\" \"User Commands\"\n.nh\n.ad l\n");
  absl::StrAppend(&out, ".SH NAME\n", name, " \\- find directions in language models, measure them, edit the weights\n");
  absl::StrAppend(&out, ".SH SYNOPSIS\n", Bold(name), " [", Italic("options"), "] ", Italic("command"), " [",
                  Italic("arguments"), "]\n.SH DESCRIPTION\n", Troff(app.get_description()), "\n.PP\nStart with:\n.RS 4\n.nf\n",
                  Troff("bearing init job.yaml\nbearing run job.yaml\n"), ".fi\n.RE\n");
  out += ".SH OPTIONS\nOf every command:\n";
  AppendOptions(app, out);
  out += ".SH COMMANDS\n";
  for (const CLI::App* command : CommandsOf(app)) AppendCommand(*command, name, out);
  out += ".SH EXIT STATUS\n";
  for (const ExitCodeMeaning& exit : ExitCodeMeanings()) {
    absl::StrAppend(&out, ".TP\n.B ", exit.code, "\n", Troff(exit.meaning), "\n");
  }
  out += ".SH ENVIRONMENT\n";
  for (const Named& variable : kEnvironment)
    absl::StrAppend(&out, ".TP\n", Bold(variable.name), "\n", Troff(variable.about), "\n");
  out += ".SH FILES\n";
  for (const Named& file : kFiles) absl::StrAppend(&out, ".TP\n", Bold(file.name), "\n", Troff(file.about), "\n");
  return out;
}

}  // namespace bearing::cli
