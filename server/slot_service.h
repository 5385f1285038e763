// gRPC adapter of SlotService.

#ifndef TOWLINE_SERVER_SLOT_SERVICE_H_
#define TOWLINE_SERVER_SLOT_SERVICE_H_

#include <functional>
#include <string>

#include "common/work_pool.h"
#include "server/node.h"
#include "towline/v1/slot_service.grpc.pb.h"

namespace towline {

// Threads: gRPC's; the work, which saves files, runs on `pool`.
class SlotServiceImpl final : public v1::SlotService::CallbackService {
 public:
  SlotServiceImpl(Node& node, WorkPool& pool) : node_(node), pool_(pool) {}

  grpc::ServerUnaryReactor* ListSlots(grpc::CallbackServerContext* context, const v1::ListSlotsRequest* request,
                                      v1::ListSlotsResponse* response) override;
  grpc::ServerUnaryReactor* GetSlot(grpc::CallbackServerContext* context, const v1::GetSlotRequest* request,
                                    v1::GetSlotResponse* response) override;
  grpc::ServerUnaryReactor* CreateSlot(grpc::CallbackServerContext* context, const v1::CreateSlotRequest* request,
                                       v1::CreateSlotResponse* response) override;
  grpc::ServerUnaryReactor* DropSlot(grpc::CallbackServerContext* context, const v1::DropSlotRequest* request,
                                     v1::DropSlotResponse* response) override;

 private:
  absl::Status Find(const std::string& name, v1::Slot* out);
  absl::Status Create(const v1::CreateSlotRequest& request, v1::CreateSlotResponse* response);

  Node& node_;
  WorkPool& pool_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_SLOT_SERVICE_H_
