// A YAML (or JSON) document as a tree that keeps lines, quotes and duplicate keys, which yaml-cpp's own nodes lose.
//
// Functions are stateless; a tree is immutable after parsing and may be shared between threads.
#ifndef BEARING_JOBS_YAML_TREE_H_
#define BEARING_JOBS_YAML_TREE_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace bearing::jobs {

struct YamlNode;
using YamlNodePtr = std::shared_ptr<const YamlNode>;

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };
  Kind kind = Kind::kNull;
  int line = 0;                    // 1-based; 0 when the text has no lines of its own (a value from the command line).
  std::string text;                // kScalar.
  bool quoted = false;             // kScalar: written in quotes or as a block, so it is text and never a number.
  std::vector<YamlNodePtr> items;  // kSequence.
  std::vector<std::pair<YamlNodePtr, YamlNodePtr>> entries;  // kMap, in file order, duplicates kept.
};

// "a list", "a map", `"text"`, "nothing": what was found, for messages.
std::string Describe(const YamlNode& node);

// Parses exactly one document; an empty one is a null node. InvalidArgument "SOURCE:LINE: ..." for a syntax error, text that is
// not UTF-8, more than one document, custom tags, an alias that contains itself, or more than 100 aliases.
absl::StatusOr<YamlNodePtr> ParseYaml(std::string_view text, std::string_view source);

}  // namespace bearing::jobs

#endif  // BEARING_JOBS_YAML_TREE_H_
