// A client's line to the coordinator: the channel with its credentials, and the token of each call.
//
// TLS is used when a CA, a certificate or `tls` is given; files are read again when they change. A token goes in plaintext to
// this machine alone, unless that is allowed. Thread-safe.
#ifndef BEARING_RPC_CLIENT_CONNECTION_H_
#define BEARING_RPC_CLIENT_CONNECTION_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rpc/client_security.h"

namespace bearing::rpc {

class ClientConnection {
 public:
  // InvalidArgument or NotFound for files that cannot be used; connects later. `server` is HOST:PORT.
  static absl::StatusOr<std::unique_ptr<ClientConnection>> Open(const std::string& server, const ClientSecurity& security);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  // Adds the token to a call. The file is read anew, as tokens are renewed.
  absl::Status Authorize(grpc::ClientContext* context) const;

 private:
  ClientConnection(std::shared_ptr<grpc::Channel> channel, std::string token_file, std::string token)
      : channel_(std::move(channel)), token_file_(std::move(token_file)), token_(std::move(token)) {}

  const std::shared_ptr<grpc::Channel> channel_;
  const std::string token_file_;
  const std::string token_;  // When there is no file.
};

}  // namespace bearing::rpc

#endif  // BEARING_RPC_CLIENT_CONNECTION_H_
