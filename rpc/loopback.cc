#include "rpc/loopback.h"

#include <arpa/inet.h>
#include <netinet/in.h>

namespace bearing::rpc {

bool IsLoopback(const std::string& host) {
  if (host == "localhost") return true;
  in_addr v4{};
  // Parsed as a number: a host name such as 127.0.0.1.example.org must not pass.
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace bearing::rpc
