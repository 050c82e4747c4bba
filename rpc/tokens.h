// Bearer tokens: 256 random bits that a client holds, and the file in which the coordinator keeps only their SHA-256.
//
// A line of the file: NAME SCOPE[,SCOPE...] EXPIRES SHA256, e.g.
//   alice submit 2027-01-31T00:00:00Z 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
// EXPIRES may be `never`; empty lines and lines that start with # are skipped. Plain SHA-256 is enough for random bits of this
// length: there is nothing to guess. Stateless.
#ifndef BEARING_RPC_TOKENS_H_
#define BEARING_RPC_TOKENS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace bearing::rpc {

// Bits. Submit may also read; admin may do all of the public API; worker only what workers do.
enum Scope : unsigned { kScopeRead = 1, kScopeSubmit = 2, kScopeAdmin = 4, kScopeWorker = 8 };

// What a holder of `scopes` may do, the included ones added.
unsigned Expand(unsigned scopes);
// 0 when unknown.
Scope ParseScope(std::string_view name);
std::string ScopeName(Scope scope);

struct TokenEntry {
  std::string name;
  unsigned scopes = 0;
  absl::Time expires = absl::InfiniteFuture();
  std::string sha256;  // 32 bytes, not hex.
};

// "brg_" and 43 characters of base64url. Unavailable when the system has no randomness.
absl::StatusOr<std::string> NewToken();

// 32 bytes.
std::string HashOfToken(std::string_view token);

std::string FormatTokenLine(const TokenEntry& entry);

// InvalidArgument names the line (and never its content). Two entries must not share a name or a hash.
absl::StatusOr<std::vector<TokenEntry>> ParseTokenFile(std::string_view text, std::string_view source);

// Equal, in a time that depends on the lengths alone.
bool EqualInConstantTime(std::string_view a, std::string_view b);

}  // namespace bearing::rpc

#endif  // BEARING_RPC_TOKENS_H_
