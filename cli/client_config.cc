#include "cli/client_config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/client_config_reader.h"
#include "cli/output.h"
#include "jobs/artifacts.h"
#include "jobs/did_you_mean.h"
#include "jobs/utf8.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLongestName = 63;
constexpr mode_t kOthers = 077;

std::string ConfigText(const ClientConfig& config) {
  nlohmann::json contexts = nlohmann::json::object();
  for (const ConnectionContext& context : config.contexts) {
    nlohmann::json& entry = contexts[context.name] = nlohmann::json::object();
    entry["server"] = context.server;
    for (const ConfigTextField& field : ConfigTextFields()) {
      if (const std::string& value = context.security.*field.member; !value.empty()) entry[field.name] = value;
    }
    for (const ConfigFlagField& field : ConfigFlagFields()) {
      if (context.security.*field.member) entry[field.name] = true;
    }
  }
  nlohmann::json root = {{"apiVersion", kConfigApiVersion}, {"kind", kConfigKind}, {"contexts", contexts}};
  if (!config.current.empty()) root["current_context"] = config.current;
  return "# Servers of `bearing`; `bearing context --help` changes it.\n" + JsonToYaml(root);
}

absl::Status WriteWhole(int file, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return absl::ErrnoToStatus(errno, Concat("cannot write the config: file=", path));
    text.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(file) != 0) return absl::ErrnoToStatus(errno, Concat("cannot write the config: file=", path));
  return absl::OkStatus();
}

}  // namespace

ConnectionContext* ClientConfig::Find(std::string_view name) {
  const auto found = std::find_if(contexts.begin(), contexts.end(), [&](const auto& context) { return context.name == name; });
  return found == contexts.end() ? nullptr : &*found;
}

std::string ClientConfigPath(const Variables& variables) {
  if (const std::string given = variables("BEARING_CONFIG"); !given.empty()) return given;
  if (const std::string folder = variables("XDG_CONFIG_HOME"); !folder.empty()) return folder + "/bearing/config.yaml";
  if (const std::string home = variables("HOME"); !home.empty()) return home + "/.config/bearing/config.yaml";
  return "";
}

absl::StatusOr<ClientConfig> LoadClientConfig(const std::string& path) {
  ClientConfig config;
  config.path = path;
  std::error_code error;
  if (path.empty() || !fs::exists(path, error)) return config;
  BEARING_ASSIGN_OR_RETURN(const std::string text, jobs::ReadFile(path));
  BEARING_ASSIGN_OR_RETURN(config, ParseClientConfig(text, path));
  config.exists = true;
  struct stat about {};
  if (stat(path.c_str(), &about) != 0) return absl::ErrnoToStatus(errno, Concat("cannot be read: file=", path));
  for (const ConnectionContext& context : config.contexts) {
    if (context.security.token.empty() || (about.st_mode & kOthers) == 0) continue;
    return absl::InvalidArgumentError(Concat(path, ": contexts.", context.name,
                                             ".token: others may read the file: run `chmod 600 ", path, "`, found mode 0",
                                             absl::StrFormat("%o", about.st_mode & 0777)));
  }
  return config;
}

absl::Status SaveClientConfig(const ClientConfig& config) {
  if (config.path.empty()) {
    return absl::FailedPreconditionError("no place for the config: set BEARING_CONFIG, XDG_CONFIG_HOME or HOME");
  }
  std::error_code error;
  // A link stays one: what it points to is replaced.
  fs::path path = fs::weakly_canonical(config.path, error);
  if (error) path = config.path;
  if (fs::exists(path, error) && !fs::is_regular_file(path, error)) {
    return absl::FailedPreconditionError(Concat("the config is no plain file: path=", path.string()));
  }
  std::vector<fs::path> missing;
  for (fs::path folder = path.parent_path(); !folder.empty() && !fs::exists(folder, error); folder = folder.parent_path()) {
    missing.push_back(folder);
  }
  for (auto folder = missing.rbegin(); folder != missing.rend(); ++folder) {
    if (mkdir(folder->c_str(), 0700) != 0 && errno != EEXIST) {
      return absl::ErrnoToStatus(errno, Concat("cannot make a folder: path=", folder->string()));
    }
  }
  const std::string temporary = Concat(path.string(), ".", getpid(), ".partial");
  const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return absl::ErrnoToStatus(errno, Concat("cannot write the config: file=", temporary));
  absl::Status written = WriteWhole(file, ConfigText(config), temporary);
  close(file);
  if (written.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    written = absl::ErrnoToStatus(errno, Concat("cannot write the config: file=", path.string()));
  }
  if (!written.ok()) unlink(temporary.c_str());
  return written;
}

absl::Status CheckContextName(std::string_view name) {
  const bool fits = !name.empty() && name.size() <= kLongestName && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  });
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError("expected a name of 1 to 63 letters, digits, '.', '_' and '-'");
}

absl::Status CheckServerAddress(std::string_view server) {
  const size_t colon = server.rfind(':');
  int port = 0;
  const bool fits = colon != std::string_view::npos && colon > 0 && absl::SimpleAtoi(AsAbsl(server.substr(colon + 1)), &port) &&
                    port > 0 && port < 65536 && server.find_first_of(" \t/@") == std::string_view::npos &&
                    jobs::FirstInvalidUtf8(server) == std::string_view::npos;
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError("expected HOST:PORT");
}

absl::Status UnknownContext(const ClientConfig& config, std::string_view name) {
  std::vector<std::string> names;
  names.reserve(config.contexts.size());
  for (const ConnectionContext& context : config.contexts) names.push_back(context.name);
  const std::string nearest = jobs::NearestName(name, names);
  std::string hint = names.empty() ? "it has none" : "it has " + absl::StrJoin(names, ", ");
  if (!nearest.empty()) hint = Concat("did you mean ", nearest, "?");
  return absl::InvalidArgumentError(Concat("no such context: context=", Escaped(name), " file=", config.path, "; ", hint));
}

}  // namespace bearing::cli
