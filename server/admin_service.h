// gRPC adapter of AdminService.

#ifndef TOWLINE_SERVER_ADMIN_SERVICE_H_
#define TOWLINE_SERVER_ADMIN_SERVICE_H_

#include "common/work_pool.h"
#include "server/node.h"
#include "server/rpc_queue.h"
#include "towline/v1/admin_service.grpc.pb.h"

namespace towline {

// Threads: a queue's; Ping is answered on its thread, the rest runs on `pool`.
class AdminServiceImpl final {
 public:
  AdminServiceImpl(Node& node, WorkPool& pool) : node_(node), pool_(pool) {}

  grpc::Service* service() { return &service_; }
  // Before the queue starts.
  void Serve(RpcQueue& queue);

 private:
  absl::Status Recover(const v1::RecoverRequest& request, v1::RecoverResponse* response);
  absl::Status Digest(const v1::GetDigestRequest& request, v1::GetDigestResponse* response);

  v1::AdminService::AsyncService service_;
  Node& node_;
  WorkPool& pool_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_ADMIN_SERVICE_H_
