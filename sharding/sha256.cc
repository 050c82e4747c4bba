#include "sharding/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "absl/strings/escaping.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"

namespace bearing::sharding {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  bool ok = evp != nullptr && EVP_DigestInit_ex(evp, EVP_sha256(), nullptr) == 1;
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {}
Sha256::~Sha256() = default;

void Sha256::Update(std::string_view bytes) {
  if (context_->ok) context_->ok = EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1;
}

absl::StatusOr<std::string> Sha256::Finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  if (context_->ok) context_->ok = EVP_DigestFinal_ex(context_->evp, digest.data(), &size) == 1;
  if (!context_->ok) return absl::InternalError("the crypto library cannot compute SHA-256");
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest.data()), size));
}

absl::StatusOr<std::string> Sha256Hex(std::string_view bytes) {
  Sha256 sha;
  sha.Update(bytes);
  return sha.Finish();
}

absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const FileDescriptor file, OpenForReading(path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, FileSize(file, path));
  Sha256 sha;
  std::string block(static_cast<size_t>(std::min<int64_t>(size, 1 << 20)), '\0');
  for (int64_t offset = 0; offset < size;) {
    const int64_t n = std::min<int64_t>(static_cast<int64_t>(block.size()), size - offset);
    BEARING_RETURN_IF_ERROR(ReadAt(file, offset, absl::MakeSpan(block.data(), static_cast<size_t>(n)), path));
    sha.Update(std::string_view(block.data(), static_cast<size_t>(n)));
    offset += n;
  }
  return sha.Finish();
}

}  // namespace bearing::sharding
