// HTTP for operators: /metrics, /livez, /readyz, /primary, /replica, /status. Read-only.

#ifndef TOWLINE_SERVER_HTTP_SERVER_H_
#define TOWLINE_SERVER_HTTP_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/node.h"

namespace towline {

// Answers on threads of its own.
class HttpServer {
 public:
  virtual ~HttpServer() = default;
  virtual int port() const = 0;
  virtual void Stop() = 0;  // idempotent
};

// Binds HOST:PORT exclusively and starts. FAILED_PRECONDITION, reason port_in_use.
absl::StatusOr<std::unique_ptr<HttpServer>> StartHttpServer(const std::string& address, Node& node);

}  // namespace towline

#endif  // TOWLINE_SERVER_HTTP_SERVER_H_
