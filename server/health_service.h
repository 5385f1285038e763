// The standard gRPC health service.

#ifndef TOWLINE_SERVER_HEALTH_SERVICE_H_
#define TOWLINE_SERVER_HEALTH_SERVICE_H_

#include <map>
#include <memory>
#include <set>
#include <string>

#include "common/mutex.h"
#include "grpc/health/v1/health_service.grpc.pb.h"
#include "server/rpc_call.h"

namespace towline {

// Threads: Set and Shutdown from any thread.
class HealthServiceImpl final {
 public:
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  grpc::Service* service() { return &service_; }
  // Before the queue starts.
  void Serve(RpcQueue& queue);

  // Sets the state of a service (full name; empty = the node) and tells those who watch it.
  void Set(const std::string& service, bool serving) TOWLINE_EXCLUDES(mutex_);

  // Everything is NOT_SERVING from now on, whatever is set.
  void Shutdown() TOWLINE_EXCLUDES(mutex_);

 private:
  class WatchCall;

  absl::Status Check(const std::string& service, grpc::health::v1::HealthCheckResponse* response)
      TOWLINE_EXCLUDES(mutex_);
  Status Get(const std::string& service) const TOWLINE_EXCLUDES(mutex_);
  void TellLocked(const std::string& service) TOWLINE_REQUIRES(mutex_);

  grpc::health::v1::Health::AsyncService service_;
  mutable Mutex mutex_;
  std::map<std::string, Status> states_ TOWLINE_GUARDED_BY(mutex_);
  bool shut_down_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<WatchCall>> watchers_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_SERVER_HEALTH_SERVICE_H_
