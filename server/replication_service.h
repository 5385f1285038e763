// gRPC adapter of ReplicationService: streams on top of the transport-free sessions of `primary`.

#ifndef TOWLINE_SERVER_REPLICATION_SERVICE_H_
#define TOWLINE_SERVER_REPLICATION_SERVICE_H_

#include "common/work_pool.h"
#include "server/node.h"
#include "server/rpc_queue.h"
#include "towline/v1/replication_service.grpc.pb.h"

namespace towline {

// Threads: a queue's; sessions run on `streams`, one piece of work at a time each, unary calls on `calls`.
class ReplicationServiceImpl final {
 public:
  ReplicationServiceImpl(Node& node, WorkPool& streams, WorkPool& snapshots, WorkPool& calls)
      : node_(node), streams_(streams), snapshots_(snapshots), calls_(calls) {}

  grpc::Service* service() { return &service_; }
  // Before the queue starts.
  void Serve(RpcQueue& queue);

 private:
  // FetchSnapshot in bytes, the rest in messages.
  using Generated = v1::ReplicationService;
  using Service =
      Generated::WithRawMethod_FetchSnapshot<Generated::WithAsyncMethod_Pull<Generated::WithAsyncMethod_SaveSnapshot<
          Generated::WithAsyncMethod_PlanResume<Generated::WithAsyncMethod_DescribeStart<Generated::Service>>>>>;

  Service service_;
  Node& node_;
  WorkPool& streams_;
  WorkPool& snapshots_;
  WorkPool& calls_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_REPLICATION_SERVICE_H_
