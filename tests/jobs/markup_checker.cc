#include "tests/jobs/markup_checker.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace bearing::jobs {
namespace {

bool IsVoid(const std::string& name) { return name == "meta" || name == "!DOCTYPE"; }

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Markup Read() {
    while (markup_.error.empty() && at_ < text_.size()) {
      if (text_[at_] == '<') {
        Tag();
      } else {
        Text();
      }
    }
    if (markup_.error.empty() && !open_.empty()) Fail("not closed: " + open_.back());
    return std::move(markup_);
  }

 private:
  void Fail(const std::string& message) {
    if (markup_.error.empty()) markup_.error = message + " near: " + std::string(text_.substr(at_ < 60 ? 0 : at_ - 60, 120));
  }

  void Text() {
    const bool style = !open_.empty() && open_.back() == "style";
    const size_t end = std::min(text_.find('<', at_), text_.size());
    for (; at_ < end; ++at_) {
      if (!style && text_[at_] == '>') return Fail("a bare >");
      if (!style && text_[at_] == '&') Reference();
    }
  }

  void Reference() {
    const std::string_view rest = text_.substr(at_);
    for (const std::string_view known : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"}) {
      if (rest.substr(0, known.size()) == known) return;
    }
    Fail("a bare &");
  }

  std::string Name() {
    const size_t start = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '-' || text_[at_] == '!'))
      ++at_;
    return std::string(text_.substr(start, at_ - start));
  }

  void SkipSpace() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }

  void Attribute(Element& element) {
    const std::string name = Name();
    if (name.empty()) return Fail("an attribute without a name");
    std::string value;
    // HTML's flags, e.g. <details open>.
    if (at_ < text_.size() && text_[at_] == '=') {
      if (text_.substr(at_, 2) != "=\"") return Fail("an attribute without quotes");
      const size_t end = text_.find('"', at_ + 2);
      if (end == std::string_view::npos) return Fail("an attribute that never ends");
      value = std::string(text_.substr(at_ + 2, end - at_ - 2));
      if (value.find('<') != std::string::npos) return Fail("a < in an attribute");
      at_ = end + 1;
    }
    if (name == "id" && !ids_.insert(value).second) return Fail("an id given twice: " + value);
    if (!element.attributes.emplace(name, value).second) Fail("an attribute given twice: " + name);
  }

  void Tag() {
    ++at_;
    const bool closing = at_ < text_.size() && text_[at_] == '/';
    if (closing) ++at_;
    Element element;
    element.name = Name();
    if (element.name.empty()) return Fail("a bare <");
    if (closing) {
      if (open_.empty() || open_.back() != element.name) return Fail("closed out of order: " + element.name);
      open_.pop_back();
      if (text_.substr(at_, 1) != ">") return Fail("a closing tag with more than a name");
      ++at_;
      return;
    }
    element.ancestors = open_;
    bool empty = IsVoid(element.name);
    while (markup_.error.empty()) {
      SkipSpace();
      if (at_ >= text_.size()) return Fail("a tag that never ends");
      if (text_[at_] == '>') break;
      if (text_.substr(at_, 2) == "/>") {
        empty = true;
        ++at_;
        break;
      }
      Attribute(element);
    }
    ++at_;
    if (!empty) open_.push_back(element.name);
    markup_.elements.push_back(std::move(element));
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<std::string> open_;
  std::set<std::string> ids_;
  Markup markup_;
};

}  // namespace

std::vector<const Element*> Markup::Find(std::string_view name, std::string_view css_class) const {
  std::vector<const Element*> found;
  for (const Element& element : elements) {
    if (element.name != name) continue;
    const auto classes = element.attributes.find("class");
    const std::string list = classes == element.attributes.end() ? "" : " " + classes->second + " ";
    if (css_class.empty() || list.find(" " + std::string(css_class) + " ") != std::string::npos) found.push_back(&element);
  }
  return found;
}

Markup ReadMarkup(std::string_view text) { return Reader(text).Read(); }

}  // namespace bearing::jobs
