// gRPC adapter of KvService.

#ifndef TOWLINE_SERVER_KV_SERVICE_H_
#define TOWLINE_SERVER_KV_SERVICE_H_

#include <memory>

#include "common/work_pool.h"
#include "server/node.h"
#include "server/rpc_call.h"
#include "server/scan_registry.h"
#include "towline/v1/kv_service.grpc.pb.h"

namespace towline {

// Threads: a queue's. Reads run on `reads`, writes on the node's loops; nothing blocks an RPC thread on the disk.
class KvServiceImpl final {
 public:
  KvServiceImpl(Node& node, WorkPool& reads);

  grpc::Service* service() { return &service_; }
  // Before the queue starts.
  void Serve(RpcQueue& queue);

 private:
  void Write(UnaryCall<v1::WriteRequest, v1::WriteResponse>* call);

  v1::KvService::AsyncService service_;
  Node& node_;
  WorkPool& reads_;
  ScanRegistry scans_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_KV_SERVICE_H_
