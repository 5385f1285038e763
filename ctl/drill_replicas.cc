// Drills in which a replica is in trouble: slot-loss, full-resync, stall.

#include <string>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/file_system.h"
#include "ctl/drill_run.h"

namespace towline::ctl {
namespace {

absl::StatusOr<v1::Slot> SlotOf(DrillRun& run, const std::string& name) {
  TOWLINE_ASSIGN_OR_RETURN(const auto client, run.Ask(run.primary()));
  v1::GetSlotRequest request;
  request.set_name(name);
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetSlotResponse response, client->GetSlot(request));
  return response.slot();
}

// The replica that is in trouble: the last one.
LocalNode& Victim(DrillRun& run) { return run.local().node(run.Others().back().node_id); }

// State of a replica as the primary sees it.
absl::StatusOr<std::string> StateOf(DrillRun& run, const std::string& node_id) {
  TOWLINE_ASSIGN_OR_RETURN(const auto client, run.Ask(run.primary()));
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client->GetStatus());
  for (const v1::ReplicaStatus& replica : status.replicas()) {
    if (replica.node_id() == node_id) return replica.state();
  }
  return std::string("absent");
}

}  // namespace

absl::Status RunSlotLoss(DrillRun& run) {
  LocalNode& victim = Victim(run);
  run.history().rto_from = "replica_restarted";
  run.history().rto_until = "serves";
  run.history().resync_expected = "full";
  run.Inject();
  victim.process->Kill();
  v1::SlotInvalidation invalidation;
  TOWLINE_RETURN_IF_ERROR(run.Wait("the slot is invalidated", [&]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const v1::Slot slot, SlotOf(run, victim.node_id));
    invalidation = slot.invalidation();
    return slot.state() == v1::SLOT_STATE_INVALIDATED;
  }));
  run.Mark("slot_invalidated");
  run.history().notes.push_back(absl::StrCat("slot ", victim.node_id, " was invalidated: ", invalidation.cause(),
                                             ", it needed LSN ", invalidation.needed_lsn()));
  if (invalidation.cause() != "retained_bytes") {
    run.history().failures.push_back(
        absl::StrCat("the slot was invalidated because of ", invalidation.cause(), " instead of retained_bytes"));
  }
  TOWLINE_RETURN_IF_ERROR(run.Wait("its log is removed", [&]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const auto client, run.Ask(run.primary()));
    TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client->GetStatus());
    return status.wal().first_lsn() > invalidation.needed_lsn();
  }));
  run.Mark("log_removed");
  run.Mark("replica_restarted");
  TOWLINE_RETURN_IF_ERROR(run.local().Launch(victim));
  TOWLINE_RETURN_IF_ERROR(run.WaitServes(run.node(victim.node_id), "serves"));
  TOWLINE_RETURN_IF_ERROR(run.Wait("the slot holds the log again", [&]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const v1::Slot slot, SlotOf(run, victim.node_id));
    return slot.state() == v1::SLOT_STATE_ACTIVE && slot.health() == v1::SLOT_HEALTH_RESERVED;
  }));
  run.Mark("slot_revived");
  return absl::OkStatus();
}

absl::Status RunFullResync(DrillRun& run) {
  LocalNode& victim = Victim(run);
  run.history().rto_until = "serves";
  run.history().resync_expected = "full";
  run.Inject();
  victim.process->Kill();
  TOWLINE_RETURN_IF_ERROR(RemoveAll(*PosixFileSystem(), victim.data_dir));
  run.Mark("replica_restarted");
  TOWLINE_RETURN_IF_ERROR(run.local().Launch(victim));
  return run.WaitServes(run.node(victim.node_id), "serves");
}

absl::Status RunStall(DrillRun& run) {
  LocalNode& victim = Victim(run);
  run.history().resync_forbidden = "full";
  run.history().notes.push_back(absl::StrCat(victim.node_id, " was stopped with SIGSTOP"));
  run.Inject();
  victim.process->Stop();
  TOWLINE_RETURN_IF_ERROR(run.Wait("the replica is reported as stalled", [&]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const std::string state, StateOf(run, victim.node_id));
    return state == "stalled";
  }));
  run.Mark("stall_reported");
  TOWLINE_RETURN_IF_ERROR(run.WaitAnswered(DrillLevel::kReplicas, 1));
  run.Mark("replica_continued");
  victim.process->Continue();
  TOWLINE_RETURN_IF_ERROR(run.WaitServes(run.node(victim.node_id), "serves"));
  TOWLINE_RETURN_IF_ERROR(run.Wait("the replica streams", [&]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const std::string state, StateOf(run, victim.node_id));
    return state == "streaming";
  }));
  run.Mark("streaming");
  return absl::OkStatus();
}

}  // namespace towline::ctl
