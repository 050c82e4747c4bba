// Test helper: sha256 in hexadecimal, as the expectations hold ids and texts.
#ifndef BEARING_TESTS_BRIDGE_DIGEST_H_
#define BEARING_TESTS_BRIDGE_DIGEST_H_

#include <openssl/sha.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_join.h"

namespace bearing::bridge {

inline std::string Digest(std::string_view bytes) {
  unsigned char hash[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), hash);
  std::string text;
  for (unsigned char byte : hash) {
    constexpr char kHex[] = "0123456789abcdef";
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
  return text;
}

// Of the ids in decimal, joined by commas.
inline std::string Digest(const std::vector<int32_t>& ids) { return Digest(absl::StrJoin(ids, ",")); }

}  // namespace bearing::bridge

#endif  // BEARING_TESTS_BRIDGE_DIGEST_H_
