// The PEM files that the coordinator serves TLS with, followed while it runs. A changed set is taken as a whole, and only when
// every file parses to its end and the key is that of the certificate; anything else is logged once and the old set stays.
//
// Thread-safe. The logger must outlive it.
#ifndef BEARING_COORDINATOR_CERTIFICATE_FILES_H_
#define BEARING_COORDINATOR_CERTIFICATE_FILES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace spdlog {
class logger;
}

namespace bearing::coordinator {

struct TlsOptions {
  std::string cert_file;       // PEM, the chain from the own certificate on; empty = plaintext.
  std::string key_file;        // PEM.
  std::string client_ca_file;  // PEM; clients must then show a certificate of one of these.

  bool enabled() const { return !cert_file.empty(); }
};

// The texts of the files.
struct CertificateSet {
  std::string chain;
  std::string key;
  std::string client_ca;  // Empty without --tls-client-ca.
};

class CertificateFiles {
 public:
  struct Version {
    int64_t number = 0;  // From 1 on; grows with each set that is taken.
    std::shared_ptr<const CertificateSet> set;
  };

  // InvalidArgument, naming flag and file, for files that are no key, certificate or pair.
  static absl::StatusOr<std::unique_ptr<CertificateFiles>> Open(const TlsOptions& options, spdlog::logger* logger);

  // Looks whether files have changed. Called every so often.
  void Refresh();

  Version current() const;
  bool asks_clients() const { return !options_.client_ca_file.empty(); }

 private:
  CertificateFiles(TlsOptions options, spdlog::logger* logger) : options_(std::move(options)), logger_(logger) {}

  const TlsOptions options_;
  spdlog::logger* const logger_;
  mutable absl::Mutex mutex_;
  Version current_ ABSL_GUARDED_BY(mutex_);
  std::string seen_ ABSL_GUARDED_BY(mutex_);       // What the files looked like that are in force.
  std::string complaint_ ABSL_GUARDED_BY(mutex_);  // Why those after them were not taken, as it was logged.
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_CERTIFICATE_FILES_H_
