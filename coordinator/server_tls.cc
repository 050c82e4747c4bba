#include "coordinator/server_tls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <string>
#include <vector>

namespace bearing::coordinator {
namespace {

// One port: which version of the files gRPC has got for it.
struct PortFiles {
  const CertificateFiles* files;
  int64_t number = 0;
};

// gRPC asks at each handshake of a port, one at a time.
grpc_ssl_certificate_config_reload_status Fetch(void* data, grpc_ssl_server_certificate_config** config) {
  auto* port = static_cast<PortFiles*>(data);
  const CertificateFiles::Version now = port->files->current();
  if (now.number == port->number) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair = {now.set->key.c_str(), now.set->chain.c_str()};
  // gRPC insists on roots; where no client is asked for a certificate nothing is compared with them.
  const std::string& roots = now.set->client_ca.empty() ? now.set->chain : now.set->client_ca;
  *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
  port->number = now.number;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

// The C++ interface has credentials that follow files too, but those take whatever the files hold, half written or not, and key
// and certificate one by one. The C interface asks for a whole set.
class FollowingCredentials final : public grpc::ServerCredentials {
 public:
  explicit FollowingCredentials(const CertificateFiles* files) : files_(files) {}

  // Callers are told apart by CallGuard, not here.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    ports_.push_back(std::make_unique<PortFiles>(PortFiles{files_}));
    grpc_ssl_server_credentials_options* options = grpc_ssl_server_credentials_create_options_using_config_fetcher(
        files_->asks_clients() ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                               : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
        &Fetch, ports_.back().get());
    grpc_server_credentials* credentials = grpc_ssl_server_credentials_create_with_options(options);
    const int port = grpc_server_add_http2_port(server, address.c_str(), credentials);
    grpc_server_credentials_release(credentials);
    return port;
  }

  const CertificateFiles* const files_;
  std::vector<std::unique_ptr<PortFiles>> ports_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const CertificateFiles* files) {
  if (files == nullptr) return grpc::InsecureServerCredentials();
  return std::make_shared<FollowingCredentials>(files);
}

}  // namespace bearing::coordinator
