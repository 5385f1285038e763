// gRPC adapter of KvService.

#ifndef TOWLINE_SERVER_KV_SERVICE_H_
#define TOWLINE_SERVER_KV_SERVICE_H_

#include <memory>

#include "common/work_pool.h"
#include "server/node.h"
#include "server/scan_registry.h"
#include "towline/v1/kv_service.grpc.pb.h"

namespace towline {

// Threads: gRPC's. Reads run on `reads`, writes on the node's loops; nothing blocks an RPC thread on the disk.
class KvServiceImpl final : public v1::KvService::CallbackService {
 public:
  KvServiceImpl(Node& node, WorkPool& reads);

  grpc::ServerUnaryReactor* Write(grpc::CallbackServerContext* context, const v1::WriteRequest* request,
                                  v1::WriteResponse* response) override;
  grpc::ServerBidiReactor<v1::WriteStreamRequest, v1::WriteStreamResponse>* WriteStream(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const v1::GetRequest* request,
                                v1::GetResponse* response) override;
  grpc::ServerUnaryReactor* BatchGet(grpc::CallbackServerContext* context, const v1::BatchGetRequest* request,
                                     v1::BatchGetResponse* response) override;
  grpc::ServerUnaryReactor* Scan(grpc::CallbackServerContext* context, const v1::ScanRequest* request,
                                 v1::ScanResponse* response) override;

 private:
  Node& node_;
  WorkPool& reads_;
  ScanRegistry scans_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_KV_SERVICE_H_
