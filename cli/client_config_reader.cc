#include "cli/client_config_reader.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "cli/client_config.h"
#include "jobs/did_you_mean.h"
#include "jobs/yaml_tree.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

using jobs::YamlNode;

// What was found, without what it says: it may be a secret in the wrong place.
std::string KindOf(const YamlNode& node) { return node.kind == YamlNode::Kind::kScalar ? "text" : jobs::Describe(node); }

class Reader {
 public:
  explicit Reader(const std::string& path)
      : path_(path), folder_(std::filesystem::absolute(path).lexically_normal().parent_path()) {}

  absl::StatusOr<ClientConfig> Read(const YamlNode& root) {
    ClientConfig config;
    config.path = path_;
    int current_line = 0;
    EachEntry(root, "", {"apiVersion", "kind", "current_context", "contexts"},
              [&](const std::string& key, const YamlNode& value) {
                if (key == "apiVersion") return Expect(value, key, kConfigApiVersion);
                if (key == "kind") return Expect(value, key, kConfigKind);
                if (key == "contexts") return ReadContexts(value, config);
                current_line = value.line;
                config.current = Text(value, key);
              });
    if (!config.current.empty() && config.Find(config.current) == nullptr) {
      Wrong(current_line, "current_context", std::string(UnknownContext(config, config.current).message()));
    }
    if (!problems_.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems_, "\n"));
    return config;
  }

 private:
  void Wrong(int line, const std::string& field, const std::string& what) {
    problems_.push_back(Concat(path_, ":", line, ": ", field.empty() ? "" : field + ": ", what));
  }

  // Calls `take` for every key that is known, once each. An empty `known` takes any.
  template <typename Take>
  void EachEntry(const YamlNode& node, const std::string& path, const std::vector<std::string>& known, const Take& take) {
    if (node.kind == YamlNode::Kind::kNull) return;
    if (node.kind != YamlNode::Kind::kMap) return Wrong(node.line, path, "expected a map, found " + KindOf(node));
    std::map<std::string, int> first_line;
    for (const auto& [key, value] : node.entries) {
      const std::string name = key->kind == YamlNode::Kind::kScalar ? key->text : "";
      const std::string field = path.empty() ? Escaped(name) : Concat(path, ".", Escaped(name));
      const auto [first, is_new] = first_line.emplace(name, key->line);
      if (!is_new) {
        Wrong(key->line, field, Concat("given twice, first on line ", first->second));
      } else if (known.empty() || std::find(known.begin(), known.end(), name) != known.end()) {
        take(name, *value);
      } else {
        const std::string nearest = jobs::NearestName(name, known);
        Wrong(key->line, field,
              nearest.empty() ? "unknown key; known here: " + absl::StrJoin(known, ", ")
                              : Concat("unknown key; did you mean \"", nearest, "\"?"));
      }
    }
  }

  void Expect(const YamlNode& node, const std::string& field, const std::string& wanted) {
    if (node.kind != YamlNode::Kind::kScalar || node.text != wanted) Wrong(node.line, field, Concat("expected ", wanted));
  }

  std::string Text(const YamlNode& node, const std::string& field) {
    if (node.kind == YamlNode::Kind::kNull) return "";
    if (node.kind == YamlNode::Kind::kScalar) return node.text;
    Wrong(node.line, field, "expected text, found " + KindOf(node));
    return "";
  }

  void ReadContexts(const YamlNode& node, ClientConfig& config) {
    EachEntry(node, "contexts", {}, [&](const std::string& name, const YamlNode& value) {
      const std::string field = "contexts." + Escaped(name);
      if (const absl::Status named = CheckContextName(name); !named.ok()) {
        return Wrong(value.line, field, std::string(named.message()));
      }
      config.contexts.push_back(ReadContext(value, name, field));
    });
  }

  ConnectionContext ReadContext(const YamlNode& node, const std::string& name, const std::string& path) {
    ConnectionContext context{.name = name, .server = "", .security = {}};
    std::vector<std::string> known = {"server"};
    for (const ConfigTextField& field : ConfigTextFields()) known.emplace_back(field.name);
    for (const ConfigFlagField& field : ConfigFlagFields()) known.emplace_back(field.name);
    EachEntry(node, path, known, [&](const std::string& key, const YamlNode& value) {
      const std::string at = Concat(path, ".", key);
      if (key == "server") {
        context.server = Text(value, at);
        if (const absl::Status fits = CheckServerAddress(context.server); !fits.ok()) {
          Wrong(value.line, at, std::string(fits.message()));
        }
      }
      for (const ConfigTextField& field : ConfigTextFields()) {
        if (key != field.name) continue;
        std::string text = Text(value, at);
        if (field.is_path && !text.empty()) text = (folder_ / text).lexically_normal().string();
        context.security.*field.member = std::move(text);
      }
      for (const ConfigFlagField& field : ConfigFlagFields()) {
        if (key != field.name) continue;
        const bool on = value.kind == YamlNode::Kind::kScalar && value.text == "true";
        const bool off = value.kind == YamlNode::Kind::kScalar && value.text == "false";
        if (!on && !off) Wrong(value.line, at, "expected true or false");
        context.security.*field.member = on;
      }
    });
    const rpc::ClientSecurity& security = context.security;
    if (context.server.empty() && problems_.empty()) Wrong(node.line, path + ".server", "missing: HOST:PORT");
    if (!security.token.empty() && !security.token_file.empty()) {
      Wrong(node.line, path, "has both token and token_file; give one of them");
    }
    if (security.cert_file.empty() != security.key_file.empty()) {
      Wrong(node.line, path, "a client certificate needs both cert_file and key_file");
    }
    return context;
  }

  const std::string path_;
  const std::filesystem::path folder_;
  std::vector<std::string> problems_;
};

}  // namespace

absl::StatusOr<ClientConfig> ParseClientConfig(std::string_view text, const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const jobs::YamlNodePtr root, jobs::ParseYaml(text, path));
  return Reader(path).Read(*root);
}

}  // namespace bearing::cli
