// How a client shows who it is and knows the server: flags and environment of all programs that call the coordinator.
#ifndef BEARING_RPC_CLIENT_SECURITY_H_
#define BEARING_RPC_CLIENT_SECURITY_H_

#include <string>

namespace bearing::rpc {

struct ClientSecurity {
  bool tls = false;            // With the system's CAs when there is no ca_file.
  std::string ca_file = {};    // PEM; whom to trust.
  std::string cert_file = {};  // PEM; who we are, with key_file.
  std::string key_file = {};
  std::string token_file = {};   // Its first line is the token.
  std::string token = {};        // The token itself, without a file.
  bool allow_plaintext = false;  // Send a token unencrypted to another machine.

  bool encrypts() const { return tls || !ca_file.empty() || !cert_file.empty(); }
};

// What BEARING_CA_FILE, BEARING_CERT_FILE, BEARING_KEY_FILE, BEARING_TOKEN_FILE and BEARING_TLS say, where `given` says
// nothing.
ClientSecurity WithEnvironment(ClientSecurity given);

}  // namespace bearing::rpc

#endif  // BEARING_RPC_CLIENT_SECURITY_H_
