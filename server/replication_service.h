// gRPC adapter of ReplicationService: streams on top of the transport-free sessions of `primary`.

#ifndef TOWLINE_SERVER_REPLICATION_SERVICE_H_
#define TOWLINE_SERVER_REPLICATION_SERVICE_H_

#include "common/work_pool.h"
#include "server/node.h"
#include "towline/v1/replication_service.grpc.pb.h"

namespace towline {

// Threads: gRPC's; sessions run on `streams`, one piece of work at a time each, unary calls on `calls`.
class ReplicationServiceImpl final : public v1::ReplicationService::CallbackService {
 public:
  ReplicationServiceImpl(Node& node, WorkPool& streams, WorkPool& calls)
      : node_(node), streams_(streams), calls_(calls) {}

  grpc::ServerBidiReactor<v1::PullRequest, v1::PullResponse>* Pull(grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::FetchSnapshotResponse>* FetchSnapshot(
      grpc::CallbackServerContext* context, const v1::FetchSnapshotRequest* request) override;
  grpc::ServerUnaryReactor* PlanResume(grpc::CallbackServerContext* context, const v1::PlanResumeRequest* request,
                                       v1::PlanResumeResponse* response) override;

 private:
  Node& node_;
  WorkPool& streams_;
  WorkPool& calls_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_REPLICATION_SERVICE_H_
