#include "jobs/judge/response_text.h"

#include <cstdint>

namespace bearing::jobs {
namespace {

// One character at `at`, and its length; a byte that begins no well-formed sequence is itself, with `valid` false.
struct Character {
  char32_t code = 0;
  size_t length = 1;
  bool valid = false;
};

Character At(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  if (first < 0x80) return {first, 1, true};
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || at + length > text.size()) return {first, 1, false};
  char32_t code = first & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return {first, 1, false};
    code = code << 6 | (byte(at + i) & 0x3F);
  }
  return {code, length, true};
}

void Append(char32_t code, std::string& out) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
    return put(0x80 | (code & 0x3F));
  }
  put(0xE0 | code >> 12);  // Folding makes none above U+FFFF.
  put(0x80 | (code >> 6 & 0x3F));
  put(0x80 | (code & 0x3F));
}

// Pairs of letters, capital first, from an even or an odd number on.
bool InPairs(char32_t code, char32_t begin, char32_t end) { return code >= begin && code <= end; }

char32_t Lower(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  if (c >= 0xC0 && c <= 0xDE && c != 0xD7) return c + 32;
  if (InPairs(c, 0x100, 0x12F) || InPairs(c, 0x132, 0x137) || InPairs(c, 0x14A, 0x177) || InPairs(c, 0x1E00, 0x1E95) ||
      InPairs(c, 0x1EA0, 0x1EFF) || InPairs(c, 0x460, 0x481) || InPairs(c, 0x48A, 0x4BF) || InPairs(c, 0x4D0, 0x52F)) {
    return c | 1;
  }
  if (InPairs(c, 0x139, 0x148) || InPairs(c, 0x179, 0x17E) || InPairs(c, 0x4C1, 0x4CE)) return c + (c & 1);
  if (c == 0x178) return 0xFF;
  if (c >= 0x391 && c <= 0x3AB && c != 0x3A2) return c + 32;
  if (c == 0x386) return 0x3AC;
  if (c >= 0x388 && c <= 0x38A) return c + 37;
  if (c == 0x38C) return 0x3CC;
  if (c == 0x38E || c == 0x38F) return c + 63;
  if (c >= 0x400 && c <= 0x40F) return c + 80;
  if (c >= 0x410 && c <= 0x42F) return c + 32;
  if (c == 0x4C0) return 0x4CF;
  if (c >= 0x531 && c <= 0x556) return c + 48;
  return c;
}

bool IsApostrophe(char32_t c) { return c == 0x2018 || c == 0x2019 || c == 0x201B || c == 0x02BC || c == 0x2032 || c == 0xFF07; }

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

}  // namespace

std::string FoldForMatching(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Character c = At(text, i);
    if (!c.valid || c.length > 3) {
      out.append(text.substr(i, c.length));
    } else {
      Append(IsApostrophe(c.code) ? U'\'' : Lower(c.code), out);
    }
    i += c.length;
  }
  return out;
}

size_t CountWords(std::string_view text) {
  size_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const Character c = At(text, i);
    const bool space = c.valid && IsSpace(c.code);
    if (!space && !inside) ++words;
    inside = !space;
    i += c.length;
  }
  return words;
}

}  // namespace bearing::jobs
