#include "coordinator/certificate_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <spdlog/spdlog.h>

#include <string_view>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "coordinator/file_look.h"
#include "jobs/artifacts.h"
#include "sharding/status_macros.h"

namespace bearing::coordinator {
namespace {

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio Memory(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free); }

std::string LookAt(const TlsOptions& options) { return LookOf({options.cert_file, options.key_file, options.client_ca_file}); }

absl::StatusOr<std::string> ReadPem(const std::string& path, const char* flag) {
  absl::StatusOr<std::string> text = jobs::ReadFile(path);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat(flag, ": ", text.status().message()));
  return text;
}

size_t CountOf(const std::string& text, std::string_view part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// The first certificate; all of them must be whole.
absl::StatusOr<Certificate> ParseCertificates(const std::string& text, const std::string& path, const char* flag) {
  const size_t begun = CountOf(text, "-----BEGIN CERTIFICATE-----");
  const Bio memory = Memory(text);
  Certificate first(nullptr, &X509_free);
  size_t whole = 0;
  while (true) {
    Certificate next(PEM_read_bio_X509(memory.get(), nullptr, nullptr, nullptr), &X509_free);
    if (next == nullptr) break;
    if (first == nullptr) first = std::move(next);
    ++whole;
  }
  if (first == nullptr) return absl::InvalidArgumentError(absl::StrCat(flag, ": holds no PEM certificate: file=", path));
  if (whole < begun || CountOf(text, "-----BEGIN") != CountOf(text, "-----END")) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": ends in the middle, or holds a broken certificate: file=", path, " whole=", whole));
  }
  return first;
}

absl::StatusOr<CertificateSet> ReadSet(const TlsOptions& options) {
  absl::Cleanup forget = [] { ERR_clear_error(); };  // What could not be parsed must not look like an error of a connection.
  CertificateSet set;
  BEARING_ASSIGN_OR_RETURN(set.chain, ReadPem(options.cert_file, "--tls-cert"));
  BEARING_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificates(set.chain, options.cert_file, "--tls-cert"));
  BEARING_ASSIGN_OR_RETURN(set.key, ReadPem(options.key_file, "--tls-key"));
  // With an empty passphrase, as gRPC reads it: without one, OpenSSL would ask at the terminal.
  char passphrase[] = "";
  const Key key(PEM_read_bio_PrivateKey(Memory(set.key).get(), nullptr, nullptr, passphrase), &EVP_PKEY_free);
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-key: holds no PEM key, or an encrypted one: file=", options.key_file));
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("--tls-key: is not the key of the certificate: key=", options.key_file,
                                                   " certificate=", options.cert_file));
  }
  // What TLS itself refuses, gRPC would refuse in silence.
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> trial(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free);
  if (trial == nullptr || SSL_CTX_use_certificate(trial.get(), certificate.get()) != 1 ||
      SSL_CTX_use_PrivateKey(trial.get(), key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-cert: TLS does not take it; its key is too short or its hash too old: file=", options.cert_file));
  }
  if (!options.client_ca_file.empty()) {
    BEARING_ASSIGN_OR_RETURN(set.client_ca, ReadPem(options.client_ca_file, "--tls-client-ca"));
    BEARING_RETURN_IF_ERROR(ParseCertificates(set.client_ca, options.client_ca_file, "--tls-client-ca").status());
  }
  return set;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CertificateFiles>> CertificateFiles::Open(const TlsOptions& options, spdlog::logger* logger) {
  std::unique_ptr<CertificateFiles> files(new CertificateFiles(options, logger));
  const std::string look = LookAt(options);
  BEARING_ASSIGN_OR_RETURN(CertificateSet set, ReadSet(options));
  absl::MutexLock lock(&files->mutex_);
  files->seen_ = look;
  files->current_ = {1, std::make_shared<const CertificateSet>(std::move(set))};
  return files;
}

void CertificateFiles::Refresh() {
  const std::string look = LookAt(options_);
  {
    absl::MutexLock lock(&mutex_);
    if (look == seen_) {
      complaint_.clear();
      return;
    }
  }
  absl::StatusOr<CertificateSet> set = ReadSet(options_);
  // Written to while they were read: next time.
  if (LookAt(options_) != look) return;
  absl::MutexLock lock(&mutex_);
  if (!set.ok()) {
    // Tried again at the next look: what could not be read just now may be readable then.
    std::string complaint(set.status().message());
    if (complaint == complaint_) return;
    complaint_ = std::move(complaint);
    logger_->error("certificates not taken, the old ones stay in force: {}", complaint_);
    return;
  }
  seen_ = look;
  complaint_.clear();
  current_ = {current_.number + 1, std::make_shared<const CertificateSet>(*std::move(set))};
  logger_->info("certificates read again: certificate={} client_ca={}", options_.cert_file, options_.client_ca_file);
}

CertificateFiles::Version CertificateFiles::current() const {
  absl::MutexLock lock(&mutex_);
  return current_;
}

}  // namespace bearing::coordinator
