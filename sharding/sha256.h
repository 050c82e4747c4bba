// SHA-256, incrementally or at once.
//
// Not thread-safe. Errors (out of memory, a crypto provider that forbids the digest) are kept and come out of Finish.
#ifndef BEARING_SHARDING_SHA256_H_
#define BEARING_SHARDING_SHA256_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bearing::sharding {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::string_view bytes);

  // 64 lower-case hex digits. Call once, last.
  absl::StatusOr<std::string> Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

absl::StatusOr<std::string> Sha256Hex(std::string_view bytes);

// Of a file's bytes, read in blocks.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_SHA256_H_
