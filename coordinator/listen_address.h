// Which addresses the coordinator may serve in plaintext.
#ifndef BEARING_COORDINATOR_LISTEN_ADDRESS_H_
#define BEARING_COORDINATOR_LISTEN_ADDRESS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bearing::coordinator {

struct ListenAddress {
  std::string host;  // Without brackets.
  int port = 0;
  // Reachable from this machine alone: 127.0.0.0/8, ::1, localhost.
  bool loopback = false;
};

// "HOST:PORT" or "[IPV6]:PORT"; port 0 = any free one. InvalidArgument otherwise.
absl::StatusOr<ListenAddress> ParseListenAddress(std::string_view text);

// FailedPrecondition for an address that others can reach, unless allowed: nothing here encrypts or asks who calls.
absl::Status CheckPlaintextAllowed(const ListenAddress& address, bool allowed);

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_LISTEN_ADDRESS_H_
