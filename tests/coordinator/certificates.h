// Certificates for tests, made on the spot with OpenSSL's library: a CA, and keys that it signs.
#ifndef BEARING_TESTS_COORDINATOR_CERTIFICATES_H_
#define BEARING_TESTS_COORDINATOR_CERTIFICATES_H_

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <memory>
#include <string>

namespace bearing::coordinator {

class CertificateAuthority {
 public:
  explicit CertificateAuthority(const std::string& name) : key_(EVP_EC_gen("P-256")) {
    certificate_ = Make(name, key_, key_, "critical,CA:TRUE", "");
  }
  ~CertificateAuthority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  CertificateAuthority(const CertificateAuthority&) = delete;
  CertificateAuthority& operator=(const CertificateAuthority&) = delete;

  void Write(const std::string& path) const { WriteCertificate(path, certificate_); }

  // A certificate for 127.0.0.1 and localhost, with its key in PATH.key, encrypted where there is a passphrase; several replace
  // each other's files whole.
  void Issue(const std::string& name, const std::string& path, const std::string& passphrase = "") const {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    const EVP_CIPHER* cipher = passphrase.empty() ? nullptr : EVP_aes_128_cbc();
    X509* certificate = Make(name, key, key_, "CA:FALSE", "IP:127.0.0.1,DNS:localhost", certificate_);
    {
      std::unique_ptr<FILE, int (*)(FILE*)> file(fopen((path + ".key.new").c_str(), "w"), &fclose);
      PEM_write_PrivateKey(file.get(), key, cipher, reinterpret_cast<const unsigned char*>(passphrase.data()),
                           static_cast<int>(passphrase.size()), nullptr, nullptr);
    }
    WriteCertificate(path + ".new", certificate);
    rename((path + ".key.new").c_str(), (path + ".key").c_str());
    rename((path + ".new").c_str(), path.c_str());
    X509_free(certificate);
    EVP_PKEY_free(key);
  }

 private:
  static void AddExtension(X509* certificate, X509* issuer, int kind, const char* value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }

  static X509* Make(const std::string& name, EVP_PKEY* key, EVP_PKEY* signer, const char* constraints, const char* hosts,
                    X509* issuer = nullptr) {
    static int serial = 0;
    X509* certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 24 * 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer == nullptr ? certificate : issuer));
    AddExtension(certificate, issuer == nullptr ? certificate : issuer, NID_basic_constraints, constraints);
    if (*hosts != '\0') AddExtension(certificate, issuer, NID_subject_alt_name, hosts);
    X509_sign(certificate, signer, EVP_sha256());
    return certificate;
  }

  static void WriteCertificate(const std::string& path, X509* certificate) {
    std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "w"), &fclose);
    PEM_write_X509(file.get(), certificate);
  }

  EVP_PKEY* key_;
  X509* certificate_;
};

}  // namespace bearing::coordinator

#endif  // BEARING_TESTS_COORDINATOR_CERTIFICATES_H_
