// `bearing context`: named servers in the client's config.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cli/client_config.h"
#include "cli/client_config_reader.h"
#include "cli/command.h"
#include "cli/completion.h"
#include "cli/connection.h"
#include "cli/exit_code.h"
#include "jobs/utf8.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

struct ContextOptions {
  std::string name;
  bool token_stdin = false;
  bool use = false;
};

absl::StatusOr<ClientConfig> Load() { return LoadClientConfig(ClientConfigPath(ProcessVariables())); }

// Where the token is; never what it is.
std::string TokenPlace(const ConnectionContext& context, const ClientConfig& config) {
  if (!context.security.token_file.empty()) return context.security.token_file;
  return context.security.token.empty() ? "-" : absl::StrCat(config.path, " (not shown)");
}

nlohmann::json ContextJson(const ConnectionContext& context, const ClientConfig& config) {
  nlohmann::json json = {{"name", context.name},
                         {"current", context.name == config.current},
                         {"server", context.server},
                         {"tokenInConfig", !context.security.token.empty()}};
  for (const ConfigTextField& field : ConfigTextFields()) {
    if (field.is_path && !(context.security.*field.member).empty()) json[field.name] = context.security.*field.member;
  }
  for (const ConfigFlagField& field : ConfigFlagFields()) json[field.name] = context.security.*field.member;
  return json;
}

int Print(const nlohmann::json& json, OutputFormat format) {
  std::cout << (format == OutputFormat::kYaml ? JsonToYaml(json) : json.dump(2) + "\n");
  return kExitOk;
}

int List(const Globals& globals) {
  const absl::StatusOr<ClientConfig> config = Load();
  if (!config.ok()) return Fail(config.status());
  const OutputFormat format = ParseOutputFormat(globals.output);
  if (format == OutputFormat::kJson || format == OutputFormat::kYaml) {
    nlohmann::json all = nlohmann::json::array();
    for (const ConnectionContext& context : config->contexts) all.push_back(ContextJson(context, *config));
    return Print({{"contexts", all}}, format);
  }
  if (format == OutputFormat::kName) {
    for (const ConnectionContext& context : config->contexts) std::cout << context.name << '\n';
    return kExitOk;
  }
  if (config->contexts.empty()) {
    std::cerr << "no contexts in " << config->path << "; make one: bearing context set NAME --server HOST:PORT\n";
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows = {{"CURRENT", "NAME", "SERVER", "TLS", "TOKEN"}};
  for (const ConnectionContext& context : config->contexts) {
    rows.push_back({context.name == config->current ? "*" : "", context.name, context.server,
                    context.security.encrypts() ? "yes" : "no", TokenPlace(context, *config)});
  }
  std::cout << FormatTable(rows);
  return kExitOk;
}

int Show(const ContextOptions& options, const Globals& globals) {
  absl::StatusOr<ClientConfig> config = Load();
  if (!config.ok()) return Fail(config.status());
  std::string name = options.name.empty() ? globals.context : options.name;
  if (name.empty()) name = ProcessVariables()("BEARING_CONTEXT");
  if (name.empty()) name = config->current;
  if (name.empty()) {
    return Fail(absl::NotFoundError(absl::StrCat("no context is in use: file=", config->path, "; see bearing context list")));
  }
  const ConnectionContext* context = config->Find(name);
  if (context == nullptr) return Fail(UnknownContext(*config, name), kExitNotFound);
  const OutputFormat format = ParseOutputFormat(globals.output);
  if (format == OutputFormat::kJson || format == OutputFormat::kYaml) return Print(ContextJson(*context, *config), format);
  if (format == OutputFormat::kName) {
    std::cout << context->name << '\n';
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows = {{"name", context->name},
                                                {"current", context->name == config->current ? "yes" : "no"},
                                                {"server", context->server},
                                                {"tls", context->security.encrypts() ? "yes" : "no"}};
  for (const ConfigTextField& field : ConfigTextFields()) {
    const std::string& value = context->security.*field.member;
    if (field.is_path && field.member != &rpc::ClientSecurity::token_file && !value.empty())
      rows.push_back({field.name, value});
  }
  rows.push_back({"token", TokenPlace(*context, *config)});
  if (context->security.allow_plaintext) rows.push_back({"insecure_plaintext_token", "yes"});
  rows.push_back({"config", config->path});
  std::cout << FormatTable(rows);
  return kExitOk;
}

// Changes the config and writes it.
template <typename Change>
int Rewrite(const Change& change) {
  absl::StatusOr<ClientConfig> config = Load();
  if (!config.ok()) return Fail(config.status());
  if (const absl::Status changed = change(*config); !changed.ok()) return Fail(changed);
  if (const absl::Status saved = SaveClientConfig(*config); !saved.ok()) return Fail(saved, kExitFailed);
  return kExitOk;
}

absl::Status Found(ClientConfig& config, const std::string& name) {
  if (config.Find(name) != nullptr) return absl::OkStatus();
  return absl::NotFoundError(UnknownContext(config, name).message());
}

int Use(const ContextOptions& options) {
  return Rewrite([&](ClientConfig& config) {
    BEARING_RETURN_IF_ERROR(Found(config, options.name));
    config.current = options.name;
    return absl::OkStatus();
  });
}

int Delete(const ContextOptions& options) {
  return Rewrite([&](ClientConfig& config) {
    BEARING_RETURN_IF_ERROR(Found(config, options.name));
    config.contexts.erase(std::find_if(config.contexts.begin(), config.contexts.end(),
                                       [&](const ConnectionContext& context) { return context.name == options.name; }));
    if (config.current == options.name) config.current.clear();
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> TokenFromStdin() {
  std::string line;
  std::getline(std::cin, line);
  std::string token(absl::StripAsciiWhitespace(line));
  if (token.empty() || token.find_first_of(" \t") != std::string::npos) {
    return absl::InvalidArgumentError("--token-stdin: expected one token on the first line of standard input");
  }
  return token;
}

absl::Status Apply(const ContextOptions& options, const CLI::App& app, const Globals& flags, ConnectionContext& context) {
  const auto given = [&app](const char* flag) { return app.get_option(flag)->count() > 0; };
  if (given("--server")) context.server = flags.server;
  if (const absl::Status fits = CheckServerAddress(context.server); !fits.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--server: ", fits.message()));
  }
  rpc::ClientSecurity& security = context.security;
  const std::pair<const char*, std::string rpc::ClientSecurity::*> paths[] = {
      {"--ca-file", &rpc::ClientSecurity::ca_file},
      {"--cert", &rpc::ClientSecurity::cert_file},
      {"--key", &rpc::ClientSecurity::key_file},
      {"--token-file", &rpc::ClientSecurity::token_file}};
  for (const auto& [flag, member] : paths) {
    if (!given(flag)) continue;
    const std::string& path = flags.security.*member;
    std::error_code error;
    if (!path.empty() && !std::filesystem::is_regular_file(path, error)) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": no such file: path=", path));
    }
    if (jobs::FirstInvalidUtf8(path) != std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": the name is not valid UTF-8, which the config is written in"));
    }
    // An empty value takes it out.
    security.*member = path.empty() ? "" : std::filesystem::absolute(path).lexically_normal().string();
  }
  if (given("--token-file")) security.token.clear();
  if (given("--tls")) security.tls = flags.security.tls;
  if (given("--insecure-plaintext-token")) security.allow_plaintext = flags.security.allow_plaintext;
  if (options.token_stdin) {
    if (given("--token-file")) return absl::InvalidArgumentError("give one of --token-file and --token-stdin");
    BEARING_ASSIGN_OR_RETURN(security.token, TokenFromStdin());
    security.token_file.clear();
  }
  if (security.cert_file.empty() != security.key_file.empty()) {
    return absl::InvalidArgumentError("a client certificate needs both --cert and --key");
  }
  return absl::OkStatus();
}

int Set(const ContextOptions& options, const CLI::App& app, const Globals& flags) {
  std::string said;
  const int code = Rewrite([&](ClientConfig& config) {
    if (const absl::Status named = CheckContextName(options.name); !named.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("NAME: ", named.message()));
    }
    ConnectionContext* context = config.Find(options.name);
    if (context == nullptr) {
      config.contexts.push_back({.name = options.name, .server = "", .security = {}});
      context = &config.contexts.back();
    }
    BEARING_RETURN_IF_ERROR(Apply(options, app, flags, *context));
    if (options.use || config.current.empty()) config.current = options.name;
    said = absl::StrCat("context ", options.name, config.current == options.name ? " (in use)" : "", " written to ",
                        config.path, "\n");
    return absl::OkStatus();
  });
  if (code == kExitOk) std::cerr << said;
  return code;
}

}  // namespace

void AddContextCommand(CommandLine& line) {
  auto options = std::make_shared<ContextOptions>();
  CLI::App* command = line.app.add_subcommand("context", "Keep servers with their credentials under names");
  command->require_subcommand(1);
  command->footer(
      "Contexts are kept in BEARING_CONFIG, else $XDG_CONFIG_HOME/bearing/config.yaml, else ~/.config/bearing/config.yaml. "
      "The\n"
      "one in use serves every command that talks to a server; --context NAME or BEARING_CONTEXT picks another. A flag wins\n"
      "over the environment, and that over the context. A context's credentials go to its own server alone.\n\n"
      "Example:\n  bearing context set lab --server lab.example:7070 --ca-file ca.pem --token-file lab.token\n"
      "  bearing context use lab\n  bearing list --context lab");

  CLI::App* list = command->add_subcommand("list", "List the contexts");
  list->footer("Example:\n  bearing context list\n  bearing context list -o name");
  list->callback([&line] { line.action = [&line] { return List(line.globals); }; });

  CLI::App* use = command->add_subcommand("use", "Use a context from now on");
  use->add_option("NAME", options->name, "Name of the context")->type_name(kContextType)->required();
  use->footer("Example:\n  bearing context use lab");
  use->callback([&line, options] { line.action = [options] { return Use(*options); }; });

  CLI::App* show = command->add_subcommand("show", "Show a context, without its token");
  show->add_option("NAME", options->name, "Name of the context (default: the one in use)")->type_name(kContextType);
  show->footer("Example:\n  bearing context show\n  bearing context show lab -o json");
  show->callback([&line, options] { line.action = [&line, options] { return Show(*options, line.globals); }; });

  CLI::App* set = command->add_subcommand("set", "Make a context, or change what is given of one");
  set->add_option("NAME", options->name, "Name of the context")->type_name(kContextType)->required();
  set->add_flag("--token-stdin", options->token_stdin, "Keep the token in the config itself; it is read from standard input");
  set->add_flag("--use", options->use, "Use it from now on (the first one is in any case)");
  set->footer(
      "Takes --server, --ca-file, --tls, --cert, --key, --token-file and --insecure-plaintext-token; an empty value takes a\n"
      "file out. The config is written whole, for its owner alone (mode 0600); comments in it are lost.\n\n"
      "Example:\n  bearing context set lab --server lab.example:7070 --ca-file ca.pem --token-file lab.token\n"
      "  bearing context set here --server 127.0.0.1:7070 --use");
  set->callback([&line, options] { line.action = [&line, options] { return Set(*options, line.app, line.globals); }; });

  CLI::App* remove = command->add_subcommand("delete", "Delete a context");
  remove->add_option("NAME", options->name, "Name of the context")->type_name(kContextType)->required();
  remove->footer("Example:\n  bearing context delete lab");
  remove->callback([&line, options] { line.action = [options] { return Delete(*options); }; });
}

}  // namespace bearing::cli
