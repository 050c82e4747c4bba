#include "coordinator/listen_address.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "rpc/loopback.h"
#include "sharding/concat.h"

namespace bearing::coordinator {

absl::StatusOr<ListenAddress> ParseListenAddress(std::string_view text) {
  const absl::Status invalid = absl::InvalidArgumentError(Concat("--listen: must be HOST:PORT or [IPV6]:PORT: listen=", text));
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return invalid;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  ListenAddress address;
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host.empty() || (!bracketed && host.find(':') != std::string_view::npos)) return invalid;
  if (port.empty() || !std::all_of(port.begin(), port.end(), absl::ascii_isdigit)) return invalid;
  if (!absl::SimpleAtoi(AsAbsl(port), &address.port) || address.port > 65535) return invalid;
  address.host = std::string(host);
  address.loopback = rpc::IsLoopback(address.host);
  return address;
}

absl::Status CheckPlaintextAllowed(const ListenAddress& address, bool allowed) {
  if (address.loopback || allowed) return absl::OkStatus();
  return absl::FailedPreconditionError(
      Concat("refusing to serve unencrypted on an address that other machines can reach; use a loopback address or pass "
             "--insecure-allow-plaintext: host=",
             address.host));
}

}  // namespace bearing::coordinator
