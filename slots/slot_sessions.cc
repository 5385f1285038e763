// Sessions and acks of SlotTable. Advance and EndSession take mutex_ only, so that they never wait for the disk.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "common/names.h"
#include "slots/slot_live.h"
#include "slots/slot_table.h"

namespace towline::slots {
namespace {

absl::Status InUseByAnother(const std::string& name) {
  ErrorInfo info{"slot_in_use",
                 absl::StrCat("slot ", name, " has a session of another process"),
                 "wait until that session ends, or use another slot",
                 {}};
  info.metadata["slot"] = name;
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
}

}  // namespace

absl::StatusOr<Session> SlotTable::BeginSession(const std::string& name, const SessionOwner& owner,
                                                uint64_t* superseded) {
  *superseded = 0;
  MutexLock save_lock(&save_mutex_);  // so that no session starts on a slot that is being dropped
  MutexLock lock(&mutex_);
  Live* live = FindLocked(name);
  if (live == nullptr) return SlotNotFound(name);
  if (live->session_id != 0) {
    if (live->owner.process_instance != owner.process_instance) {
      return InUseByAnother(name);
    }
    *superseded = live->session_id;
    EndSessionLocked(*live);
  }
  StartSessionLocked(*live, owner);
  return Session{live->session_id, name, live->slot.generation};
}

absl::StatusOr<Session> SlotTable::BeginTemporary(const std::string& name, SlotKind kind, uint64_t data_generation,
                                                  Lsn confirmed_lsn, const SessionOwner& owner, uint64_t* superseded) {
  *superseded = 0;
  TOWLINE_RETURN_IF_ERROR(ValidateName("slot", name));
  MutexLock save_lock(&save_mutex_);  // a save under way would install a table without the slot
  MutexLock lock(&mutex_);
  Live* live = FindLocked(name);
  if (live == nullptr || !live->slot.temporary) {
    TOWLINE_RETURN_IF_ERROR(CheckRoomLocked(name));
    std::unique_ptr<Live>& made = slots_[name];
    made = std::make_unique<Live>();
    live = made.get();
    live->slot.name = name;
    live->slot.kind = kind;
    live->slot.temporary = true;
    live->slot.created_time_ms = NowMs();
    StartGeneration(live->slot, NewId(rng_), data_generation, confirmed_lsn);
  } else {
    if (live->owner.process_instance != owner.process_instance) return InUseByAnother(name);
    *superseded = live->session_id;
    EndSessionLocked(*live);
    Slot& slot = live->slot;
    if (confirmed_lsn < slot.confirmed_lsn || !HoldsLog(slot) || slot.data_generation != data_generation) {
      slot.state = SlotState::kInactive;
      slot.invalidation.reset();
      StartGeneration(slot, NewId(rng_), data_generation, confirmed_lsn);
    }
  }
  StartSessionLocked(*live, owner);
  return Session{live->session_id, name, live->slot.generation};
}

void SlotTable::StartSessionLocked(Live& live, const SessionOwner& owner) {
  live.session_id = NewId(rng_);
  live.owner = owner;
  sessions_[live.session_id] = &live;
  Slot& slot = live.slot;
  if (slot.state == SlotState::kInactive) slot.state = SlotState::kActive;
  if (slot.owner_incarnation != owner.incarnation && !slot.temporary) dirty_ = true;
  slot.owner_incarnation = owner.incarnation;
  slot.received_lsn = 0;
  slot.applied_lsn = 0;
  slot.last_active_time_ms = NowMs();
}

void SlotTable::EndSession(uint64_t session_id) {
  MutexLock lock(&mutex_);
  const auto found = sessions_.find(session_id);
  if (found == sessions_.end()) return;
  const std::string name = found->second->slot.name;
  EndSessionLocked(*found->second);
  ForgetTemporaryLocked(name);
}

uint64_t SlotTable::SessionProcess(const std::string& name) const {
  MutexLock lock(&mutex_);
  const Live* const live = FindLocked(name);
  return live == nullptr || live->session_id == 0 ? 0 : live->owner.process_instance;
}

absl::Status SlotTable::CheckFree(const std::string& name, uint64_t process_instance) const {
  const uint64_t holder = SessionProcess(name);
  return holder == 0 || holder == process_instance ? absl::OkStatus() : InUseByAnother(name);
}

bool SlotTable::HasSession(uint64_t session_id) const {
  MutexLock lock(&mutex_);
  return sessions_.contains(session_id);
}

absl::Status SlotTable::Advance(const Ack& ack, Lsn sent_lsn) {
  MutexLock lock(&mutex_);
  const auto found = sessions_.find(ack.session_id);
  if (found == sessions_.end()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "stale_session",
                     "the session of this ack ended or never was", "connect again");
  }
  Slot& slot = found->second->slot;
  if (ack.generation != slot.generation && !Failpoint("slots_ignore_generation")) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "stale_generation",
                     absl::StrCat("the ack is for another generation of slot ", slot.name), "connect again");
  }
  const Lsn highest = std::max({ack.received_lsn, ack.flushed_lsn, ack.applied_lsn});
  if (highest > sent_lsn) {
    return MakeError(
        absl::StatusCode::kOutOfRange, "ack_ahead",
        absl::StrCat("slot ", slot.name, " acknowledges LSN ", highest, ", but only ", sent_lsn, " was sent"));
  }
  if (highest > ack.received_lsn) {
    return MakeError(absl::StatusCode::kInvalidArgument, "ack_order",
                     absl::StrCat("slot ", slot.name, " acknowledges flushed ", ack.flushed_lsn, " and applied ",
                                  ack.applied_lsn, " above received ", ack.received_lsn));
  }
  slot.received_lsn = std::max(slot.received_lsn, ack.received_lsn);
  slot.applied_lsn = std::max(slot.applied_lsn, ack.applied_lsn);
  slot.last_active_time_ms = NowMs();
  const bool progress = ack.flushed_lsn > slot.flushed_lsn || ack.flushed_lsn > slot.confirmed_lsn;
  if (progress && !slot.temporary) dirty_ = true;
  slot.flushed_lsn = std::max(slot.flushed_lsn, ack.flushed_lsn);
  slot.confirmed_lsn = std::max(slot.confirmed_lsn, ack.flushed_lsn);
  return absl::OkStatus();
}

void SlotTable::RestartIdleTimes() {
  MutexLock lock(&mutex_);
  for (const auto& [name, live] : slots_) live->idle_since_micros = clock_.MonotonicMicros();
}

void SlotTable::EndSessionLocked(Live& live) {
  if (live.session_id == 0) return;
  sessions_.erase(live.session_id);
  live.session_id = 0;
  live.idle_since_micros = clock_.MonotonicMicros();
  if (live.slot.state == SlotState::kActive) live.slot.state = SlotState::kInactive;
}

// What a temporary slot was made for is over.
void SlotTable::ForgetTemporaryLocked(const std::string& name) {
  const Live* live = FindLocked(name);
  if (live != nullptr && live->slot.temporary && live->session_id == 0) slots_.erase(name);
}

}  // namespace towline::slots
