#include "jobs/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <cstdint>
#include <map>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "jobs/utf8.h"
#include "sharding/concat.h"

namespace bearing::jobs {
namespace {

constexpr int kMaxAliases = 100;

// Builds the tree from parser events. The first error is kept and the rest of the document ignored.
class TreeBuilder : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { Add(NewNode(YamlNode::Kind::kNull, mark), anchor); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (++aliases_ > kMaxAliases) return Fail(mark, Concat("more than ", kMaxAliases, " aliases"));
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) return Fail(mark, "an alias that refers to itself");
    Append(found->second);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    CheckTag(mark, tag);
    std::shared_ptr<YamlNode> node = NewNode(YamlNode::Kind::kScalar, mark);
    node->text = value;
    node->quoted = tag == "!";
    Add(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    CheckTag(mark, tag);
    open_.push_back({NewNode(YamlNode::Kind::kSequence, mark), nullptr, anchor});
  }
  void OnSequenceEnd() override { Close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    CheckTag(mark, tag);
    open_.push_back({NewNode(YamlNode::Kind::kMap, mark), nullptr, anchor});
  }
  void OnMapEnd() override { Close(); }

  const std::string& error() const { return error_; }
  int error_line() const { return error_line_; }
  YamlNodePtr root() const { return root_; }

 private:
  struct Open {
    std::shared_ptr<YamlNode> node;
    YamlNodePtr key;  // Of a map: the key whose value comes next.
    YAML::anchor_t anchor;
  };

  static std::shared_ptr<YamlNode> NewNode(YamlNode::Kind kind, const YAML::Mark& mark) {
    auto node = std::make_shared<YamlNode>();
    node->kind = kind;
    node->line = mark.line + 1;
    return node;
  }

  void Fail(const YAML::Mark& mark, std::string message) {
    if (!error_.empty()) return;
    error_ = std::move(message);
    error_line_ = mark.line + 1;
  }

  void CheckTag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") Fail(mark, Concat("tags are not supported: ", tag));
  }

  void Add(std::shared_ptr<YamlNode> node, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) anchors_[anchor] = node;
    Append(std::move(node));
  }

  void Append(YamlNodePtr node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node->kind == YamlNode::Kind::kSequence) {
      parent.node->items.push_back(std::move(node));
    } else if (parent.key == nullptr) {
      parent.key = std::move(node);
    } else {
      parent.node->entries.emplace_back(std::move(parent.key), std::move(node));
      parent.key = nullptr;
    }
  }

  // A container gets its anchor only when it is complete, so that it cannot contain itself.
  void Close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    Add(std::move(done.node), done.anchor);
  }

  std::vector<Open> open_;
  std::map<YAML::anchor_t, YamlNodePtr> anchors_;
  YamlNodePtr root_;
  int aliases_ = 0;
  std::string error_;
  int error_line_ = 0;
};

bool HexQuad(std::string_view text, uint32_t& value) {
  return text.size() == 6 && text[0] == '\\' && text[1] == 'u' && absl::SimpleHexAtoi(AsAbsl(text.substr(2)), &value);
}

// JSON writes characters beyond U+FFFF as two escapes of a surrogate pair; YAML knows only the form \UXXXXXXXX.
std::string JoinSurrogatePairs(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '\\') {
      out += text[at++];
      continue;
    }
    uint32_t high = 0;
    uint32_t low = 0;
    const bool pair = HexQuad(text.substr(at, 6), high) && high >= 0xD800 && high < 0xDC00 && at + 6 <= text.size() &&
                      HexQuad(text.substr(at + 6, 6), low) && low >= 0xDC00 && low < 0xE000;
    if (pair) {
      absl::StrAppendFormat(&out, "\\U%08X", 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
      at += 12;
    } else {
      out += text.substr(at, 2);
      at += 2;
    }
  }
  return out;
}

// yaml-cpp takes a quote that is never closed for closed when the text ends in a line break, and so swallows all keys after it;
// without the line break it throws. (The real parse keeps the line break: block text may end in it.)
void CheckQuotesAreClosed(const std::string& content) {
  std::istringstream in(content.substr(0, content.find_last_not_of(" \t\r\n") + 1));
  YAML::Parser parser(in);
  TreeBuilder ignored;
  parser.HandleNextDocument(ignored);
}

}  // namespace

std::string Describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
    case YamlNode::Kind::kScalar:
      break;
  }
  return Concat(node.quoted ? "the text \"" : "\"", Shorten(node.text, 60), "\"");
}

absl::StatusOr<YamlNodePtr> ParseYaml(std::string_view text, std::string_view source) {
  const auto error = [&](size_t line, std::string_view message) {
    return absl::InvalidArgumentError(Concat(source, ":", line, ": ", message));
  };
  if (const size_t bad = FirstInvalidUtf8(text); bad != std::string_view::npos) {
    return error(LineOfOffset(text, bad), "the file is not valid UTF-8");
  }
  const bool json = absl::StartsWith(absl::StripLeadingAsciiWhitespace(AsAbsl(text)), "{");
  const std::string content = json ? JoinSurrogatePairs(text) : std::string(text);
  TreeBuilder builder;
  try {
    CheckQuotesAreClosed(content);
    std::istringstream in(content);
    YAML::Parser parser(in);
    if (!parser.HandleNextDocument(builder)) {
      auto empty = std::make_shared<YamlNode>();
      empty->line = 1;
      return empty;
    }
    if (builder.error().empty() && parser) {
      TreeBuilder rest;
      if (parser.HandleNextDocument(rest)) {
        return error(rest.root() == nullptr ? 1 : rest.root()->line, "more than one document: give one job a file");
      }
    }
  } catch (const YAML::Exception& e) {
    return error(e.mark.is_null() ? 1 : e.mark.line + 1, Concat("not valid YAML: ", e.msg));
  } catch (const std::exception& e) {
    return error(1, Concat("not valid YAML: ", e.what()));
  }
  if (!builder.error().empty()) return error(builder.error_line(), builder.error());
  return builder.root();
}

}  // namespace bearing::jobs
