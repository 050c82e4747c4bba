// The credentials of the coordinator's ports.
#ifndef BEARING_COORDINATOR_SERVER_TLS_H_
#define BEARING_COORDINATOR_SERVER_TLS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "coordinator/certificate_files.h"

namespace bearing::coordinator {

// Each new connection gets what `files` holds then; null = plaintext. The credentials, and `files`, must outlive every server
// that listens with them.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const CertificateFiles* files);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_SERVER_TLS_H_
