// gRPC adapter of FailoverService.

#ifndef TOWLINE_SERVER_FAILOVER_SERVICE_H_
#define TOWLINE_SERVER_FAILOVER_SERVICE_H_

#include "common/work_pool.h"
#include "server/node.h"
#include "server/rpc_queue.h"
#include "towline/v1/failover_service.grpc.pb.h"

namespace towline {

// Threads: what nodes ask one another runs on `peers`, what operators ask, which waits for other nodes, on `operators`.
class FailoverServiceImpl final {
 public:
  FailoverServiceImpl(Node& node, WorkPool& peers, WorkPool& operators)
      : node_(node), peers_(peers), operators_(operators) {}

  grpc::Service* service() { return &service_; }
  // Before the queue starts.
  void Serve(RpcQueue& queue);

 private:
  v1::FailoverService::AsyncService service_;
  Node& node_;
  WorkPool& peers_;
  WorkPool& operators_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_FAILOVER_SERVICE_H_
