// The gRPC server of a node: services, health, reflection, and the threads that serve them.

#ifndef TOWLINE_SERVER_GRPC_SERVER_H_
#define TOWLINE_SERVER_GRPC_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/node.h"

namespace towline {

// Threads: external synchronization.
class GrpcServer {
 public:
  virtual ~GrpcServer() = default;

  virtual int port() const = 0;

  // Sets the health of every service by what the node can do now. Call about once a second and on changes.
  virtual void UpdateHealth() = 0;

  // Tells health watchers, ends all calls within a short time, and stops. Idempotent.
  virtual void Shutdown() = 0;
};

// Binds HOST:PORT exclusively and starts. FAILED_PRECONDITION, reason port_in_use.
absl::StatusOr<std::unique_ptr<GrpcServer>> StartGrpcServer(const std::string& address, Node& node);

}  // namespace towline

#endif  // TOWLINE_SERVER_GRPC_SERVER_H_
