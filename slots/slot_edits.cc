// What an operator does to slots beside creating and dropping them: copies and advances.

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "slots/slot_format.h"
#include "slots/slot_live.h"
#include "slots/slot_table.h"

namespace towline::slots {
namespace {

absl::Status Invalidated(const Slot& slot, absl::string_view next_action) {
  const Invalidation& invalidation = *slot.invalidation;
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "slot_invalidated",
      absl::StrCat("slot ", slot.name, " was invalidated (", invalidation.cause, ") at LSN ", invalidation.at_lsn,
                   ": it needed LSN ", invalidation.needed_lsn, ", the log began at LSN ", invalidation.oldest_lsn),
      next_action);
}

absl::Status OfAnotherLog(const Slot& slot, uint64_t data_generation) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "wal_removed",
                   absl::StrCat("slot ", slot.name, " speaks of the log of generation ", slot.data_generation,
                                ", the node has generation ", data_generation),
                   "let its owner connect first");
}

// Whether the log behind `confirmed_lsn` is held by `source`, so that a copy can claim it.
absl::Status CheckSource(const Slot& source, Lsn confirmed_lsn, uint64_t data_generation, Lsn first_lsn) {
  switch (source.state) {
    case SlotState::kInvalidated:
      return Invalidated(source, "create a slot at an LSN that is retained instead");
    case SlotState::kBootstrapping:
    case SlotState::kRewinding: {
      const bool rewinds = source.state == SlotState::kRewinding;
      return MakeError(
          absl::StatusCode::kFailedPrecondition, rewinds ? "slot_rewinding" : "slot_bootstrapping",
          absl::StrCat("the owner of slot ", source.name, rewinds ? " goes back to" : " loads a snapshot of", " LSN ",
                       confirmed_lsn, " (", source.bootstrap_reason, ")"),
          "copy it when its owner streams again, or create a slot at an LSN");
    }
    case SlotState::kActive:
    case SlotState::kInactive:
      break;
  }
  if (source.data_generation != data_generation) return OfAnotherLog(source, data_generation);
  if (confirmed_lsn + 1 >= first_lsn) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "wal_removed",
      absl::StrCat("slot ", source.name, " needs LSN ", confirmed_lsn + 1, ", the log begins at LSN ", first_lsn),
      "create a slot at an LSN that is retained instead");
}

}  // namespace

absl::StatusOr<Slot> SlotTable::Copy(const std::string& source, const std::string& name, uint64_t data_generation,
                                     Lsn first_lsn) {
  TOWLINE_RETURN_IF_ERROR(ValidateName("slot", name));
  // What is saved of the source moves only under this lock, so Floor() covers the copy's claim until the copy does.
  MutexLock save_lock(&save_mutex_);
  Slot copy;
  {
    MutexLock lock(&mutex_);
    const Live* live = FindLocked(source);
    if (live == nullptr) return SlotNotFound(source);
    if (!live->slot.origin.empty()) return SlotIsCopy(live->slot);
    const Lsn confirmed_lsn = live->slot.temporary ? live->slot.confirmed_lsn : live->saved_confirmed_lsn;
    TOWLINE_RETURN_IF_ERROR(CheckSource(live->slot, confirmed_lsn, data_generation, first_lsn));
    TOWLINE_RETURN_IF_ERROR(CheckRoomLocked(name));
    copy.kind = live->slot.kind;
    StartGeneration(copy, NewId(rng_), data_generation, confirmed_lsn);
  }
  copy.name = name;
  copy.created_time_ms = NowMs();
  TOWLINE_RETURN_IF_ERROR(Insert(copy));
  logger_.Log(LogLevel::kInfo, "slot_copied",
              {{"slot", name},
               {"source", source},
               {"generation", absl::Hex(copy.generation, absl::kZeroPad16)},
               {"data_generation", data_generation},
               {"confirmed_lsn", copy.confirmed_lsn}});
  return copy;
}

absl::StatusOr<Slot> SlotTable::AdvanceTo(const std::string& name, Lsn confirmed_lsn, uint64_t data_generation,
                                          Lsn durable_lsn) {
  MutexLock save_lock(&save_mutex_);  // no session can begin meanwhile
  Lsn old_confirmed_lsn = 0;
  {
    MutexLock lock(&mutex_);
    const Live* live = FindLocked(name);
    if (live == nullptr) return SlotNotFound(name);
    const Slot& slot = live->slot;
    if (slot.kind != SlotKind::kConsumer) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "slot_kind",
                       absl::StrCat("slot ", name, " is a replica's: only its owner knows what it holds"),
                       "advance consumers' slots only");
    }
    if (!slot.origin.empty()) return SlotIsCopy(slot);
    if (live->session_id != 0) return SlotInUse(name);
    if (!HoldsLog(slot)) return Invalidated(slot, "resume from an explicit LSN that is retained");
    if (slot.data_generation != data_generation) return OfAnotherLog(slot, data_generation);
    if (confirmed_lsn < slot.confirmed_lsn) {
      return MakeError(
          absl::StatusCode::kOutOfRange, "advance_backwards",
          absl::StrCat("slot ", name, " has confirmed LSN ", slot.confirmed_lsn, ", which is above ", confirmed_lsn),
          "to read records again, resume from an explicit LSN, as towctl tail --from does");
    }
    if (confirmed_lsn > durable_lsn) {
      return MakeError(absl::StatusCode::kOutOfRange, "lsn_out_of_range",
                       absl::StrCat("LSN ", confirmed_lsn, " is above the durable LSN ", durable_lsn),
                       "choose an LSN of the log");
    }
    if (confirmed_lsn == slot.confirmed_lsn && confirmed_lsn == live->saved_confirmed_lsn) return slot;
    old_confirmed_lsn = slot.confirmed_lsn;
  }
  TOWLINE_RETURN_IF_ERROR(CommitSlot(name, [confirmed_lsn](Slot& slot) {
    slot.confirmed_lsn = confirmed_lsn;
    slot.flushed_lsn = std::max(slot.flushed_lsn, confirmed_lsn);
  }));
  logger_.Log(LogLevel::kInfo, "slot_advanced",
              {{"slot", name}, {"old_confirmed_lsn", old_confirmed_lsn}, {"confirmed_lsn", confirmed_lsn}});
  MutexLock lock(&mutex_);
  return FindLocked(name)->slot;
}

}  // namespace towline::slots
