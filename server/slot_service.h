// gRPC adapter of SlotService.

#ifndef TOWLINE_SERVER_SLOT_SERVICE_H_
#define TOWLINE_SERVER_SLOT_SERVICE_H_

#include <string>

#include "common/work_pool.h"
#include "server/node.h"
#include "server/rpc_queue.h"
#include "towline/v1/slot_service.grpc.pb.h"

namespace towline {

// Threads: a queue's; the work, which saves files, runs on `pool`.
class SlotServiceImpl final {
 public:
  SlotServiceImpl(Node& node, WorkPool& pool) : node_(node), pool_(pool) {}

  grpc::Service* service() { return &service_; }
  // Before the queue starts.
  void Serve(RpcQueue& queue);

 private:
  absl::Status Find(const std::string& name, v1::Slot* out);
  absl::Status Create(const v1::CreateSlotRequest& request, v1::CreateSlotResponse* response);
  absl::Status Drop(const v1::DropSlotRequest& request, v1::DropSlotResponse* response);
  absl::Status Copy(const v1::CopySlotRequest& request, v1::CopySlotResponse* response);
  absl::Status Advance(const v1::AdvanceSlotRequest& request, v1::AdvanceSlotResponse* response);
  absl::Status AcceptLoss(v1::AcceptSlotLossResponse* response);

  v1::SlotService::AsyncService service_;
  Node& node_;
  WorkPool& pool_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_SLOT_SERVICE_H_
