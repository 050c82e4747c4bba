#include "coordinator/http_endpoint.h"

#include <httplib.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bearing::coordinator {
namespace {

constexpr int kThreads = 4;
constexpr int kTimeoutSeconds = 5;

class HttplibEndpoint final : public HttpEndpoint {
 public:
  ~HttplibEndpoint() override { Stop(); }

  bool Listen(const ListenAddress& address) {
    port_ = address.port == 0 ? server_.bind_to_any_port(address.host.c_str())
                              : (server_.bind_to_port(address.host.c_str(), address.port) ? address.port : -1);
    if (port_ <= 0) return false;
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    // A stop before the first accept would be lost.
    while (!server_.is_running()) std::this_thread::yield();
    return true;
  }

  int port() const override { return port_; }

  void Stop() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }

  httplib::Server& server() { return server_; }

 private:
  httplib::Server server_;
  std::thread thread_;
  int port_ = -1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpEndpoint>> HttpEndpoint::Start(const ListenAddress& address,
                                                                  std::function<std::string()> metrics,
                                                                  std::function<bool()> ready) {
  auto endpoint = std::make_unique<HttplibEndpoint>();
  httplib::Server& server = endpoint->server();
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server.set_read_timeout(kTimeoutSeconds);
  server.set_write_timeout(kTimeoutSeconds);
  server.set_keep_alive_timeout(kTimeoutSeconds);
  server.set_payload_max_length(0);
  // Two processes on one port would each get a share of the requests.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  server.Get("/metrics", [metrics = std::move(metrics)](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics(), "text/plain; version=0.0.4; charset=utf-8");
  });
  server.Get("/livez",
             [](const httplib::Request&, httplib::Response& response) { response.set_content("ok\n", "text/plain"); });
  server.Get("/readyz", [ready = std::move(ready)](const httplib::Request&, httplib::Response& response) {
    const bool yes = ready();
    response.status = yes ? 200 : 503;
    response.set_content(yes ? "ok\n" : "draining\n", "text/plain");
  });
  if (!endpoint->Listen(address)) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen (is the port taken?): address=", address.host, ":", address.port));
  }
  return endpoint;
}

}  // namespace bearing::coordinator
