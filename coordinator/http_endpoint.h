// A small HTTP/1.1 port for programs that watch the coordinator: /metrics, /livez, /readyz.
//
// GET only, four requests at a time, nothing a client sends is kept or repeated. Runs on threads of its own.
#ifndef BEARING_COORDINATOR_HTTP_ENDPOINT_H_
#define BEARING_COORDINATOR_HTTP_ENDPOINT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/listen_address.h"

namespace bearing::coordinator {

class HttpEndpoint {
 public:
  virtual ~HttpEndpoint() = default;

  // Serving when it returns. `metrics` makes the page, `ready` says whether calls are taken; both are called from several
  // threads. Unavailable when the address is taken.
  static absl::StatusOr<std::unique_ptr<HttpEndpoint>> Start(const ListenAddress& address, std::function<std::string()> metrics,
                                                             std::function<bool()> ready);
  virtual int port() const = 0;
  // Idempotent.
  virtual void Stop() = 0;
};

}  // namespace bearing::coordinator

#endif  // BEARING_COORDINATOR_HTTP_ENDPOINT_H_
