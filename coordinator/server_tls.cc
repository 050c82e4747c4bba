#include "coordinator/server_tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "absl/strings/str_cat.h"
#include "jobs/artifacts.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

// How soon a renewed certificate is served.
constexpr unsigned kReadEverySeconds = 10;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio Memory(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free); }

// gRPC itself says nothing but that a handshake failed.
absl::StatusOr<Certificate> ReadCertificate(const std::string& path, const char* flag) {
  const absl::StatusOr<std::string> text = jobs::ReadFile(path);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat(flag, ": ", text.status().message()));
  Certificate certificate(PEM_read_bio_X509(Memory(*text).get(), nullptr, nullptr, nullptr), &X509_free);
  if (certificate == nullptr) return absl::InvalidArgumentError(absl::StrCat(flag, ": holds no PEM certificate: file=", path));
  return certificate;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const TlsOptions& options) {
  if (!options.enabled()) return grpc::InsecureServerCredentials();
  BEARING_ASSIGN_OR_RETURN(const Certificate certificate, ReadCertificate(options.cert_file, "--tls-cert"));
  const absl::StatusOr<std::string> key_text = jobs::ReadFile(options.key_file);
  if (!key_text.ok()) return absl::InvalidArgumentError(absl::StrCat("--tls-key: ", key_text.status().message()));
  const Key key(PEM_read_bio_PrivateKey(Memory(*key_text).get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("--tls-key: holds no PEM key: file=", options.key_file));
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("--tls-key: is not the key of the certificate: key=", options.key_file,
                                                   " certificate=", options.cert_file));
  }
  namespace tls = grpc::experimental;
  std::shared_ptr<tls::FileWatcherCertificateProvider> files;
  if (options.client_ca_file.empty()) {
    files = std::make_shared<tls::FileWatcherCertificateProvider>(options.key_file, options.cert_file, kReadEverySeconds);
  } else {
    BEARING_RETURN_IF_ERROR(ReadCertificate(options.client_ca_file, "--tls-client-ca").status());
    files = std::make_shared<tls::FileWatcherCertificateProvider>(options.key_file, options.cert_file, options.client_ca_file,
                                                                  kReadEverySeconds);
  }
  tls::TlsServerCredentialsOptions server(files);
  server.watch_identity_key_cert_pairs();
  if (!options.client_ca_file.empty()) {
    server.watch_root_certs();
    server.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return tls::TlsServerCredentials(server);
}

}  // namespace bearing::coordinator
