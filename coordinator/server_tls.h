// The credentials of the coordinator's ports.
#ifndef BEARING_COORDINATOR_SERVER_TLS_H_
#define BEARING_COORDINATOR_SERVER_TLS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace bearing::coordinator {

struct TlsOptions {
  std::string cert_file;       // PEM, the chain from the own certificate on; empty = plaintext.
  std::string key_file;        // PEM.
  std::string client_ca_file;  // PEM; clients must then show a certificate of one of these.

  bool enabled() const { return !cert_file.empty(); }
};

// Plaintext without a certificate. The files are read again when they change. InvalidArgument for files that are no key,
// certificate or pair.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const TlsOptions& options);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_SERVER_TLS_H_
