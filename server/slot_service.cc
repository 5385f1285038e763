#include "server/slot_service.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "server/forecast_report.h"
#include "server/run_on_pool.h"
#include "server/status_report.h"

namespace towline {

void SlotServiceImpl::Serve(RpcQueue& queue) {
  using Service = v1::SlotService::AsyncService;
  ServeOnPool(queue, &service_, &Service::RequestListSlots, pool_,
              [this](const v1::ListSlotsRequest&, v1::ListSlotsResponse* response) {
                for (const SlotStatus& slot : node_.source().Slots()) FillSlot(slot, response->add_slots());
                return absl::OkStatus();
              });
  ServeOnPool(queue, &service_, &Service::RequestGetSlot, pool_,
              [this](const v1::GetSlotRequest& request, v1::GetSlotResponse* response) {
                return Find(request.name(), response->mutable_slot());
              });
  ServeOnPool(queue, &service_, &Service::RequestCreateSlot, pool_,
              [this](const v1::CreateSlotRequest& request, v1::CreateSlotResponse* response) {
                return Create(request, response);
              });
  ServeOnPool(queue, &service_, &Service::RequestDropSlot, pool_,
              [this](const v1::DropSlotRequest& request, v1::DropSlotResponse* response) {
                return Drop(request, response);
              });
  ServeOnPool(queue, &service_, &Service::RequestForecastSlots, pool_,
              [this](const v1::ForecastSlotsRequest& request, v1::ForecastSlotsResponse* response) {
                return ReportForecast(node_, request, response);
              });
}

absl::Status SlotServiceImpl::Drop(const v1::DropSlotRequest& request, v1::DropSlotResponse* response) {
  TOWLINE_RETURN_IF_ERROR(Find(request.name(), response->mutable_slot()));
  TOWLINE_RETURN_IF_ERROR(node_.slots().Drop(request.name(), request.force()).status());
  node_.logger().Log(LogLevel::kInfo, "slot_dropped",
                     {{"slot", request.name()}, {"confirmed_lsn", response->slot().confirmed_lsn()}});
  return absl::OkStatus();
}

absl::Status SlotServiceImpl::Find(const std::string& name, v1::Slot* out) {
  for (const SlotStatus& slot : node_.source().Slots()) {
    if (slot.slot.name != name) continue;
    FillSlot(slot, out);
    return absl::OkStatus();
  }
  return SlotNotFoundError(name);
}

absl::Status SlotServiceImpl::Create(const v1::CreateSlotRequest& request, v1::CreateSlotResponse* response) {
  TOWLINE_RETURN_IF_ERROR(ValidateName("slot", request.name()));
  if (request.kind() != v1::SLOT_KIND_REPLICA && request.kind() != v1::SLOT_KIND_CONSUMER) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_kind", "kind is neither replica nor consumer");
  }
  const auto live = node_.Live();
  if (live == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, "no_data", "the node has no log yet", "retry later");
  }
  // The state, not the log, says what "now" is: a scan that follows must not be older than the slot.
  const Lsn applied = live->state().applied().lsn;
  const Lsn confirmed = request.has_confirmed_lsn() ? request.confirmed_lsn() : applied;
  // The pin keeps the log until the slot, which then keeps it itself, is saved.
  const wal::SpoolStats stats = live->spool().stats();
  const std::unique_ptr<wal::Pin> pin = live->spool().NewPin(confirmed + 1);
  const Lsn first = live->spool().stats().first_lsn;
  if (confirmed + 1 < first || confirmed > stats.durable_lsn) {
    return MakeError(absl::StatusCode::kOutOfRange, "lsn_out_of_range",
                     absl::StrCat("confirmed_lsn is ", confirmed, "; the log holds ", first, " to ", stats.durable_lsn),
                     "choose an LSN in the log, or load a snapshot first");
  }
  const auto kind =
      request.kind() == v1::SLOT_KIND_REPLICA ? slots::SlotKind::kReplica : slots::SlotKind::kConsumer;
  TOWLINE_RETURN_IF_ERROR(node_.slots().Create(request.name(), kind, live->number(), confirmed).status());
  node_.logger().Log(LogLevel::kInfo, "slot_created", {{"slot", request.name()}, {"confirmed_lsn", confirmed}});
  return Find(request.name(), response->mutable_slot());
}

}  // namespace towline
