// The node's status as one message: AdminService answers it, HTTP /status prints it, /metrics is made from it.

#ifndef TOWLINE_SERVER_STATUS_REPORT_H_
#define TOWLINE_SERVER_STATUS_REPORT_H_

#include "primary/replication_source.h"
#include "server/node.h"
#include "towline/v1/admin_service.pb.h"
#include "towline/v1/slot_service.pb.h"

namespace towline {

void FillStatus(Node& node, v1::GetStatusResponse* out);
void FillTopology(Node& node, v1::GetTopologyResponse* out);
void FillSlot(const SlotStatus& status, v1::Slot* out);

v1::SlotKind ToProto(slots::SlotKind kind);
v1::SlotState ToProto(slots::SlotState state);

}  // namespace towline

#endif  // TOWLINE_SERVER_STATUS_REPORT_H_
