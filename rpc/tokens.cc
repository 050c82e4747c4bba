#include "rpc/tokens.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::rpc {
namespace {

constexpr size_t kTokenBytes = 32;
constexpr size_t kHashBytes = 32;
constexpr size_t kLongestName = 64;
constexpr char kPrefix[] = "brg_";
constexpr char kTimeFormat[] = "%Y-%m-%dT%H:%M:%SZ";
constexpr std::array<std::pair<Scope, const char*>, 4> kScopes = {
    {{kScopeRead, "read"}, {kScopeSubmit, "submit"}, {kScopeAdmin, "admin"}, {kScopeWorker, "worker"}}};

bool IsName(std::string_view name) {
  if (name.empty() || name.size() > kLongestName) return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == '@'; });
}

absl::StatusOr<TokenEntry> ParseLine(const std::string& line) {
  const std::vector<std::string> parts = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (parts.size() != 4) return absl::InvalidArgumentError("expected NAME SCOPES EXPIRES SHA256");
  TokenEntry entry;
  entry.name = parts[0];
  if (!IsName(entry.name)) return absl::InvalidArgumentError("the name must have 1 to 64 of a-z A-Z 0-9 - _ . @");
  for (const std::string& name : std::vector<std::string>(absl::StrSplit(parts[1], ','))) {
    const Scope scope = ParseScope(name);
    if (scope == 0) return absl::InvalidArgumentError("the scopes are read, submit, admin and worker, separated by commas");
    entry.scopes |= scope;
  }
  std::string error;
  if (parts[2] != "never" && !absl::ParseTime(absl::RFC3339_full, parts[2], &entry.expires, &error)) {
    return absl::InvalidArgumentError("the expiry must be a time such as 2027-01-31T00:00:00Z, or never");
  }
  const bool hex = std::all_of(parts[3].begin(), parts[3].end(), absl::ascii_isxdigit);
  if (parts[3].size() != 2 * kHashBytes || !hex)
    return absl::InvalidArgumentError("the SHA-256 must have 64 hexadecimal digits");
  entry.sha256 = absl::HexStringToBytes(parts[3]);
  return entry;
}

}  // namespace

unsigned Expand(unsigned scopes) {
  if ((scopes & kScopeAdmin) != 0) scopes |= kScopeSubmit;
  if ((scopes & kScopeSubmit) != 0) scopes |= kScopeRead;
  return scopes;
}

Scope ParseScope(std::string_view name) {
  for (const auto& [scope, text] : kScopes) {
    if (name == text) return scope;
  }
  return Scope{};
}

std::string ScopeName(Scope scope) {
  for (const auto& [known, text] : kScopes) {
    if (scope == known) return text;
  }
  return "";
}

absl::StatusOr<std::string> NewToken() {
  std::string bytes(kTokenBytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) != 1) {
    return absl::UnavailableError("the system gives no random bytes");
  }
  std::string text = absl::WebSafeBase64Escape(bytes);
  OPENSSL_cleanse(bytes.data(), bytes.size());
  return kPrefix + text;
}

std::string HashOfToken(std::string_view token) {
  std::string hash(kHashBytes, '\0');
  unsigned size = kHashBytes;
  EVP_Digest(token.data(), token.size(), reinterpret_cast<unsigned char*>(hash.data()), &size, EVP_sha256(), nullptr);
  return hash;
}

std::string FormatTokenLine(const TokenEntry& entry) {
  std::vector<std::string> scopes;
  for (const auto& [scope, text] : kScopes) {
    if ((entry.scopes & scope) != 0) scopes.emplace_back(text);
  }
  const std::string expires =
      entry.expires == absl::InfiniteFuture() ? "never" : absl::FormatTime(kTimeFormat, entry.expires, absl::UTCTimeZone());
  return Concat(entry.name, " ", absl::StrJoin(scopes, ","), " ", expires, " ", absl::BytesToHexString(entry.sha256));
}

absl::StatusOr<std::vector<TokenEntry>> ParseTokenFile(std::string_view text, std::string_view source) {
  std::vector<TokenEntry> entries;
  std::set<std::string> names;
  std::set<std::string> hashes;
  int number = 0;
  for (const std::string& raw : std::vector<std::string>(absl::StrSplit(AsAbsl(text), '\n'))) {
    ++number;
    const std::string line(absl::StripAsciiWhitespace(raw));
    if (line.empty() || line.front() == '#') continue;
    absl::StatusOr<TokenEntry> entry = ParseLine(line);
    std::string problem(entry.status().message());
    if (entry.ok() && !names.insert(entry->name).second) problem = "the name is there already";
    if (entry.ok() && !hashes.insert(entry->sha256).second) problem = "the token is there already";
    if (!problem.empty())
      return absl::InvalidArgumentError(Concat("token file: ", problem, ": file=", source, " line=", number));
    entries.push_back(*std::move(entry));
  }
  return entries;
}

bool EqualInConstantTime(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace bearing::rpc
