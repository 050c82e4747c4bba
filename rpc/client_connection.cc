#include "rpc/client_connection.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "rpc/loopback.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::rpc {
namespace {

constexpr int kMaxMessageBytes = 16 << 20;
constexpr unsigned kCertificateSeconds = 60;
// Of the pauses between tries to connect. gRPC's own two minutes would outlast a lease.
constexpr int kLongestBackoffMs = 5000;
constexpr size_t kLongestToken = 4096;

absl::StatusOr<std::string> ReadText(const std::string& path, const char* what) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || text.empty()) {
    return absl::NotFoundError(Concat(what, ": cannot be read or is empty: path=", path));
  }
  return text;
}

bool IsToken(const std::string& token) {
  return !token.empty() && token.size() <= kLongestToken && token.find_first_of(" \t\r\n") == std::string::npos;
}

// The message never holds what was read.
absl::StatusOr<std::string> ReadToken(const std::string& path) {
  BEARING_ASSIGN_OR_RETURN(const std::string text, ReadText(path, "token file"));
  const std::string token(absl::StripAsciiWhitespace(text.substr(0, text.find('\n'))));
  if (!IsToken(token)) {
    return absl::InvalidArgumentError(Concat("token file: its first line must be one token: path=", path));
  }
  return token;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsCredentials(const ClientSecurity& security) {
  namespace tls = grpc::experimental;
  if (security.cert_file.empty() != security.key_file.empty()) {
    return absl::InvalidArgumentError("a client certificate needs both --cert and --key");
  }
  for (const auto& [path, what] : {std::pair(&security.ca_file, "--ca-file"), std::pair(&security.cert_file, "--cert"),
                                   std::pair(&security.key_file, "--key")}) {
    if (!path->empty()) BEARING_RETURN_IF_ERROR(ReadText(*path, what).status());
  }
  tls::TlsChannelCredentialsOptions options;
  std::shared_ptr<tls::FileWatcherCertificateProvider> files;
  if (!security.cert_file.empty() && !security.ca_file.empty()) {
    files = std::make_shared<tls::FileWatcherCertificateProvider>(security.key_file, security.cert_file, security.ca_file,
                                                                  kCertificateSeconds);
  } else if (!security.cert_file.empty()) {
    files = std::make_shared<tls::FileWatcherCertificateProvider>(security.key_file, security.cert_file, kCertificateSeconds);
  } else if (!security.ca_file.empty()) {
    files = std::make_shared<tls::FileWatcherCertificateProvider>(security.ca_file, kCertificateSeconds);
  }
  if (files != nullptr) options.set_certificate_provider(files);
  if (!security.ca_file.empty()) options.watch_root_certs();
  if (!security.cert_file.empty()) options.watch_identity_key_cert_pairs();
  return tls::TlsCredentials(options);
}

std::string HostOf(const std::string& server) {
  std::string host = server.substr(0, server.rfind(':'));
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return host;
}

}  // namespace

ClientSecurity WithEnvironment(ClientSecurity given) {
  const auto fill = [](std::string* value, const char* name) {
    const char* found = std::getenv(name);
    if (value->empty() && found != nullptr) *value = found;
  };
  fill(&given.ca_file, "BEARING_CA_FILE");
  fill(&given.cert_file, "BEARING_CERT_FILE");
  fill(&given.key_file, "BEARING_KEY_FILE");
  if (given.token.empty()) fill(&given.token_file, "BEARING_TOKEN_FILE");
  std::string tls;
  fill(&tls, "BEARING_TLS");
  given.tls = given.tls || tls == "1";
  return given;
}

absl::StatusOr<std::unique_ptr<ClientConnection>> ClientConnection::Open(const std::string& server,
                                                                         const ClientSecurity& security) {
  const bool secure = security.encrypts();
  const bool in_file = !security.token_file.empty();
  if (in_file) BEARING_RETURN_IF_ERROR(ReadToken(security.token_file).status());
  if (in_file || !security.token.empty()) {
    if (!in_file && !IsToken(security.token)) return absl::InvalidArgumentError("the token must be one word");
    if (!secure && !security.allow_plaintext && !IsLoopback(HostOf(server))) {
      return absl::InvalidArgumentError(
          Concat("refusing to send a token unencrypted to another machine: give --ca-file or --tls: server=", server));
    }
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (secure) {
    BEARING_ASSIGN_OR_RETURN(credentials, TlsCredentials(security));
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestBackoffMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // A proxy of the environment must not come between this machine and its own coordinator.
  if (IsLoopback(HostOf(server))) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return std::unique_ptr<ClientConnection>(
      new ClientConnection(grpc::CreateCustomChannel(server, credentials, arguments), security.token_file, security.token));
}

absl::Status ClientConnection::Authorize(grpc::ClientContext* context) const {
  std::string token = token_;
  if (!token_file_.empty()) {
    BEARING_ASSIGN_OR_RETURN(token, ReadToken(token_file_));
  }
  if (token.empty()) return absl::OkStatus();
  context->AddMetadata("authorization", "Bearer " + token);
  return absl::OkStatus();
}

}  // namespace bearing::rpc
