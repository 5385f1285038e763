#include "server/slot_service.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "server/bookmark.h"
#include "server/forecast_report.h"
#include "server/run_on_pool.h"
#include "server/status_report.h"

namespace towline {
namespace {

absl::Status NoLog() {
  return MakeError(absl::StatusCode::kUnavailable, "no_data", "the node has no log yet", "retry later");
}

}  // namespace

void SlotServiceImpl::Serve(RpcQueue& queue) {
  using Service = v1::SlotService::AsyncService;
  ServeOnPool(queue, &service_, &Service::RequestListSlots, pool_,
              [this](const v1::ListSlotsRequest&, v1::ListSlotsResponse* response) {
                for (const SlotStatus& slot : node_.source().Slots()) FillSlot(slot, response->add_slots());
                response->set_unknown(node_.slots().unknown());
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
  ServeOnPool(
      queue, &service_, &Service::RequestDropSlot, pool_,
      [this](const v1::DropSlotRequest& request, v1::DropSlotResponse* response) { return Drop(request, response); });
  ServeOnPool(
      queue, &service_, &Service::RequestCopySlot, pool_,
      [this](const v1::CopySlotRequest& request, v1::CopySlotResponse* response) { return Copy(request, response); });
  ServeOnPool(queue, &service_, &Service::RequestAdvanceSlot, pool_,
              [this](const v1::AdvanceSlotRequest& request, v1::AdvanceSlotResponse* response) {
                return Advance(request, response);
              });
  ServeOnPool(queue, &service_, &Service::RequestForecastSlots, pool_,
              [this](const v1::ForecastSlotsRequest& request, v1::ForecastSlotsResponse* response) {
                return ReportForecast(node_, request, response);
              });
  ServeOnPool(
      queue, &service_, &Service::RequestAcceptSlotLoss, pool_,
      [this](const v1::AcceptSlotLossRequest&, v1::AcceptSlotLossResponse* response) { return AcceptLoss(response); });
}

absl::Status SlotServiceImpl::Drop(const v1::DropSlotRequest& request, v1::DropSlotResponse* response) {
  TOWLINE_RETURN_IF_ERROR(Find(request.name(), response->mutable_slot()));
  return node_.source().DropSlot(request.name(), request.force()).status();
}

absl::Status SlotServiceImpl::Copy(const v1::CopySlotRequest& request, v1::CopySlotResponse* response) {
  TOWLINE_RETURN_IF_ERROR(ValidateName("slot", request.name()));
  const auto live = node_.Live();
  if (live == nullptr) return NoLog();
  const std::optional<slots::Slot> source = node_.slots().Get(request.source());
  // A temporary slot holds by its live position, which moves on: the pin holds until the copy does.
  const std::unique_ptr<wal::Pin> pin = source.has_value() ? live->spool().NewPin(source->confirmed_lsn + 1) : nullptr;
  const Lsn first = live->spool().stats().first_lsn;
  TOWLINE_RETURN_IF_ERROR(node_.slots().Copy(request.source(), request.name(), live->number(), first).status());
  return Find(request.name(), response->mutable_slot());
}

absl::Status SlotServiceImpl::Advance(const v1::AdvanceSlotRequest& request, v1::AdvanceSlotResponse* response) {
  const auto live = node_.Live();
  if (live == nullptr) return NoLog();
  TOWLINE_RETURN_IF_ERROR(
      node_.slots()
          .AdvanceTo(request.name(), request.confirmed_lsn(), live->number(), live->spool().end().lsn)
          .status());
  return Find(request.name(), response->mutable_slot());
}

absl::Status SlotServiceImpl::AcceptLoss(v1::AcceptSlotLossResponse* response) {
  response->set_was_unknown(node_.slots().unknown());
  TOWLINE_RETURN_IF_ERROR(node_.slots().AcceptLoss());
  for (const SlotStatus& slot : node_.source().Slots()) FillSlot(slot, response->add_slots());
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
  if (live == nullptr) return NoLog();
  if (!request.has_confirmed_lsn()) TOWLINE_RETURN_IF_ERROR(AwaitAnswered(node_));
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
  const auto kind = request.kind() == v1::SLOT_KIND_REPLICA ? slots::SlotKind::kReplica : slots::SlotKind::kConsumer;
  TOWLINE_RETURN_IF_ERROR(node_.slots().Create(request.name(), kind, live->number(), confirmed).status());
  return Find(request.name(), response->mutable_slot());
}

}  // namespace towline
