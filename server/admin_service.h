// gRPC adapter of AdminService.

#ifndef TOWLINE_SERVER_ADMIN_SERVICE_H_
#define TOWLINE_SERVER_ADMIN_SERVICE_H_

#include "common/work_pool.h"
#include "server/node.h"
#include "towline/v1/admin_service.grpc.pb.h"

namespace towline {

// Threads: gRPC's; Ping is answered on its thread, the rest runs on `pool`.
class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  AdminServiceImpl(Node& node, WorkPool& pool) : node_(node), pool_(pool) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* GetHistory(grpc::CallbackServerContext* context, const v1::GetHistoryRequest* request,
                                       v1::GetHistoryResponse* response) override;
  grpc::ServerUnaryReactor* GetTopology(grpc::CallbackServerContext* context, const v1::GetTopologyRequest* request,
                                        v1::GetTopologyResponse* response) override;
  grpc::ServerUnaryReactor* GetDigest(grpc::CallbackServerContext* context, const v1::GetDigestRequest* request,
                                      v1::GetDigestResponse* response) override;
  grpc::ServerUnaryReactor* Ping(grpc::CallbackServerContext* context, const v1::PingRequest* request,
                                 v1::PingResponse* response) override;

 private:
  absl::Status Digest(const v1::GetDigestRequest& request, v1::GetDigestResponse* response);

  Node& node_;
  WorkPool& pool_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_ADMIN_SERVICE_H_
