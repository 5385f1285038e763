// The standard gRPC reflection service, over the descriptors that are linked in.

#ifndef TOWLINE_SERVER_REFLECTION_SERVICE_H_
#define TOWLINE_SERVER_REFLECTION_SERVICE_H_

#include <string>
#include <utility>
#include <vector>

#include "grpc/reflection/v1alpha/reflection_service.grpc.pb.h"
#include "server/rpc_call.h"

namespace towline {

// Threads: a queue's.
class ReflectionServiceImpl final {
 public:
  // `services`: full names of what the server offers, this service too.
  explicit ReflectionServiceImpl(std::vector<std::string> services);

  grpc::Service* service() { return &service_; }
  // Before the queue starts.
  void Serve(RpcQueue& queue);

 private:
  grpc::reflection::v1alpha::ServerReflection::AsyncService service_;
  const std::vector<std::string> services_;  // ordered
};

}  // namespace towline

#endif  // TOWLINE_SERVER_REFLECTION_SERVICE_H_
