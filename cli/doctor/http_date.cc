#include "cli/doctor/http_date.h"

#include <netdb.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "sharding/concat.h"
#include "sharding/status_macros.h"

namespace bearing::cli {
namespace {

constexpr size_t kLongestHead = 64 << 10;

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

absl::StatusOr<Socket> Connect(const WebAddress& address, absl::Duration timeout) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
  if (code != 0) return absl::UnavailableError(absl::StrCat("cannot find ", address.host, ": ", gai_strerror(code)));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(found, &freeaddrinfo);
  const timeval limit = absl::ToTimeval(timeout);
  std::string error = "no address";
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    Socket socket(::socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC, one->ai_protocol));
    if (socket.fd() < 0) continue;
    // On Linux the limit of sending is that of connecting too.
    setsockopt(socket.fd(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(socket.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(socket.fd(), one->ai_addr, one->ai_addrlen) == 0) return socket;
    error = errno == EINPROGRESS ? "no answer in time" : std::strerror(errno);
  }
  return absl::UnavailableError(absl::StrCat("cannot connect to ", address.host, ":", address.port, ": ", error));
}

// Either the socket itself or TLS on it.
class Stream {
 public:
  static absl::StatusOr<Stream> Open(const WebAddress& address, absl::Duration timeout) {
    BEARING_ASSIGN_OR_RETURN(Socket socket, Connect(address, timeout));
    Stream stream(std::move(socket));
    if (!address.tls) return stream;
    stream.context_.reset(SSL_CTX_new(TLS_client_method()));
    if (stream.context_ == nullptr) return absl::InternalError("cannot set TLS up");
    SSL_CTX_set_default_verify_paths(stream.context_.get());
    SSL_CTX_set_verify(stream.context_.get(), SSL_VERIFY_PEER, nullptr);
    stream.tls_.reset(SSL_new(stream.context_.get()));
    SSL_set_tlsext_host_name(stream.tls_.get(), address.host.c_str());
    SSL_set1_host(stream.tls_.get(), address.host.c_str());
    SSL_set_fd(stream.tls_.get(), stream.socket_.fd());
    if (SSL_connect(stream.tls_.get()) == 1) return stream;
    const long verified = SSL_get_verify_result(stream.tls_.get());
    return absl::UnavailableError(absl::StrCat(
        "TLS with ", address.host,
        " failed: ", verified == X509_V_OK ? "no agreement, or no answer in time" : X509_verify_cert_error_string(verified)));
  }

  bool Write(std::string_view bytes) {
    while (!bytes.empty()) {
      const int wrote = tls_ != nullptr ? SSL_write(tls_.get(), bytes.data(), static_cast<int>(bytes.size()))
                                        : static_cast<int>(send(socket_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
      if (wrote <= 0) return false;
      bytes.remove_prefix(wrote);
    }
    return true;
  }

  int Read(char* data, int size) {
    return tls_ != nullptr ? SSL_read(tls_.get(), data, size) : static_cast<int>(recv(socket_.fd(), data, size, 0));
  }

 private:
  struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
    void operator()(SSL* tls) const { SSL_free(tls); }
  };
  explicit Stream(Socket socket) : socket_(std::move(socket)) {}

  Socket socket_;
  std::unique_ptr<SSL_CTX, Free> context_;
  std::unique_ptr<SSL, Free> tls_;
};

}  // namespace

absl::StatusOr<WebAddress> ParseWebAddress(std::string_view url) {
  const absl::Status wrong = absl::InvalidArgumentError("must be http://HOST[:PORT] or https://HOST[:PORT]");
  WebAddress address;
  absl::string_view rest = AsAbsl(url);
  if (absl::ConsumePrefix(&rest, "https://")) {
    address.tls = true;
  } else if (!absl::ConsumePrefix(&rest, "http://")) {
    return wrong;
  }
  rest = rest.substr(0, rest.find_first_of("/?#"));
  if (const size_t at = rest.rfind('@'); at != absl::string_view::npos) rest.remove_prefix(at + 1);
  size_t colon = rest.rfind(':');
  if (!rest.empty() && rest.front() == '[') {  // [IPv6]:PORT
    const size_t close = rest.find(']');
    if (close == absl::string_view::npos) return wrong;
    address.host = std::string(rest.substr(1, close - 1));
    colon = close + 1 < rest.size() ? close + 1 : absl::string_view::npos;
  } else {
    address.host = std::string(rest.substr(0, colon));
  }
  address.port = colon == absl::string_view::npos ? (address.tls ? "443" : "80") : std::string(rest.substr(colon + 1));
  if (address.host.empty() || address.port.empty() || address.port.find_first_not_of("0123456789") != std::string::npos) {
    return wrong;
  }
  return address;
}

absl::StatusOr<absl::Time> DateOfAnswer(std::string_view head) {
  for (absl::string_view line : absl::StrSplit(AsAbsl(head), '\n')) {
    line = absl::StripSuffix(line, "\r");
    if (line.empty()) break;
    if (!absl::StartsWithIgnoreCase(line, "date:")) continue;
    absl::Time time;
    std::string error;
    if (absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", absl::StripAsciiWhitespace(line.substr(5)), &time, &error)) return time;
  }
  return absl::NotFoundError("the answer has no Date");
}

absl::StatusOr<ServerDate> AskServerDate(const WebAddress& address, absl::Duration timeout) {
  std::signal(SIGPIPE, SIG_IGN);  // TLS writes by itself; a server that hangs up is an error like any other.
  BEARING_ASSIGN_OR_RETURN(Stream stream, Stream::Open(address, timeout));
  ServerDate date;
  date.asked = absl::Now();
  const bool sent = stream.Write(
      absl::StrCat("HEAD / HTTP/1.1\r\nHost: ", address.host, "\r\nUser-Agent: bearing-doctor\r\nConnection: close\r\n\r\n"));
  std::string head;
  char buffer[4096];
  while (sent && head.find("\r\n\r\n") == std::string::npos && head.size() < kLongestHead) {
    const int got = stream.Read(buffer, sizeof(buffer));
    if (got <= 0) break;
    head.append(buffer, got);
  }
  date.told = absl::Now();
  if (head.empty()) return absl::UnavailableError(absl::StrCat("no answer from ", address.host, ":", address.port));
  BEARING_ASSIGN_OR_RETURN(date.server, DateOfAnswer(head));
  return date;
}

absl::Duration ClockAhead(const ServerDate& date) {
  if (date.asked > date.server + absl::Seconds(1)) return date.asked - (date.server + absl::Seconds(1));
  if (date.told < date.server) return date.told - date.server;
  return absl::ZeroDuration();
}

}  // namespace bearing::cli
