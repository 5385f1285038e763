// What the slots hold of the log, and when they stop holding it.

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "slots/slot_format.h"
#include "slots/slot_live.h"
#include "slots/slot_table.h"

namespace towline::slots {

namespace {

// A slot that holds the log.
struct Candidate {
  Slot slot;
  int64_t idle_micros = 0;
  bool in_use = false;
};

// Who is given up first for want of space.
bool GoesBefore(const Candidate& a, const Candidate& b) {
  if (a.in_use != b.in_use) return b.in_use;
  if (a.slot.kind != b.slot.kind) return a.slot.kind == SlotKind::kConsumer;
  if (!a.in_use && a.idle_micros != b.idle_micros) return a.idle_micros > b.idle_micros;
  return a.slot.confirmed_lsn < b.slot.confirmed_lsn;
}

// The slot whose loss gives most room soonest by the order of GoesBefore; nullptr if none would give any. Never one
// without which a commit level cannot be reached.
const Candidate* FirstToGiveUp(const std::vector<Candidate>& candidates, const LogView& log) {
  const auto is_needed = [&log](const Candidate& candidate) { return log.needed_slots.contains(candidate.slot.name); };
  const auto left = static_cast<size_t>(std::count_if(candidates.begin(), candidates.end(), is_needed));
  const Candidate* first = nullptr;
  for (const Candidate& candidate : candidates) {
    if (left <= log.needed_count && is_needed(candidate)) continue;
    if (log.bytes_behind(candidate.slot.confirmed_lsn) <= log.kept_bytes) continue;
    if (first == nullptr || GoesBefore(candidate, *first)) first = &candidate;
  }
  return first;
}

}  // namespace

Lsn SlotTable::Floor(uint64_t data_generation) const {
  MutexLock lock(&mutex_);
  if (unknown_) return 0;
  const bool live_values = Failpoint("slots_floor_from_live");
  Lsn floor = std::numeric_limits<Lsn>::max();
  for (const auto& [name, live] : slots_) {
    const Slot& slot = live->slot;
    if (slot.temporary) {  // as long as the process lives, which is all that it is for, memory is enough
      if (HoldsLog(slot) && slot.data_generation == data_generation) floor = std::min(floor, slot.confirmed_lsn + 1);
      continue;
    }
    if (!live->saved_holds || live->saved_data_generation != data_generation) continue;
    floor = std::min(floor, (live_values ? slot.confirmed_lsn : live->saved_confirmed_lsn) + 1);
  }
  return floor;
}

std::optional<int64_t> SlotTable::IdleMicros(const std::string& name) const {
  MutexLock lock(&mutex_);
  const Live* const live = FindLocked(name);
  if (live == nullptr || live->session_id != 0) return std::nullopt;
  return clock_.MonotonicMicros() - live->idle_since_micros;
}

absl::StatusOr<std::vector<Slot>> SlotTable::EnforceLimits(const LogView& log, uint64_t data_generation) {
  MutexLock save_lock(&save_mutex_);
  std::vector<Candidate> candidates;  // the log is asked without mutex_
  {
    MutexLock lock(&mutex_);
    const int64_t now = clock_.MonotonicMicros();
    for (const auto& [name, live] : slots_) {
      if (!HoldsLog(live->slot) || live->slot.data_generation != data_generation) continue;
      candidates.push_back({live->slot, now - live->idle_since_micros, live->session_id != 0});
    }
  }
  std::map<std::string, Invalidation> over;
  for (const auto& [slot, idle_micros, in_use] : candidates) {
    std::string cause = OverLimit(slot, idle_micros, in_use, log);
    if (cause.empty()) continue;
    over[slot.name] = {std::move(cause), log.durable_lsn, NowMs(), slot.confirmed_lsn + 1, log.first_lsn};
  }
  // What goes for its own limit gives room too: look again afterwards.
  if (over.empty() && limits_.disk_guard_ratio > 0 && log.disk_used_ratio >= limits_.disk_guard_ratio) {
    if (const Candidate* const first = FirstToGiveUp(candidates, log)) {
      const Slot& slot = first->slot;
      over[slot.name] = {"disk_pressure", log.durable_lsn, NowMs(), slot.confirmed_lsn + 1, log.first_lsn};
    }
  }
  std::vector<Slot> invalidated;
  if (over.empty()) return invalidated;
  TOWLINE_RETURN_IF_ERROR(Commit([&](SlotImage& image) {
    for (Slot& slot : image.slots) {
      const auto found = over.find(slot.name);
      if (found == over.end()) continue;
      slot.state = SlotState::kInvalidated;
      slot.invalidation = found->second;
      invalidated.push_back(slot);
    }
  }));
  for (const Slot& slot : invalidated) LogInvalidated(slot, log);
  return invalidated;
}

absl::StatusOr<std::optional<Slot>> SlotTable::Invalidate(const std::string& name, const SessionOwner& owner,
                                                          const std::string& cause, const LogView& log,
                                                          uint64_t data_generation, uint64_t* superseded) {
  *superseded = 0;
  MutexLock save_lock(&save_mutex_);
  {
    MutexLock lock(&mutex_);
    const Live* live = FindLocked(name);
    if (live == nullptr || live->slot.temporary || live->slot.data_generation != data_generation) return std::nullopt;
    if (!HoldsLog(live->slot) || live->slot.state == SlotState::kBootstrapping) return std::nullopt;
    if (live->session_id != 0 && live->owner.process_instance != owner.process_instance) return std::nullopt;
  }
  TOWLINE_RETURN_IF_ERROR(CommitSlot(name, [&](Slot& slot) {
    slot.state = SlotState::kInvalidated;
    slot.invalidation = Invalidation{cause, log.durable_lsn, NowMs(), slot.confirmed_lsn + 1, log.first_lsn};
  }));
  MutexLock lock(&mutex_);
  Live* live = FindLocked(name);
  *superseded = live->session_id;
  EndSessionLocked(*live);
  LogInvalidated(live->slot, log);
  return live->slot;
}

void SlotTable::LogInvalidated(const Slot& slot, const LogView& log) const {
  logger_.Log(LogLevel::kWarning, "slot_invalidated",
              {{"slot", slot.name},
               {"cause", slot.invalidation->cause},
               {"needed_lsn", slot.invalidation->needed_lsn},
               {"first_lsn", log.first_lsn},
               {"durable_lsn", log.durable_lsn},
               {"bytes_behind", log.bytes_behind(slot.confirmed_lsn)},
               {"max_retained_bytes", limits_.max_retained_bytes},
               {"disk_used_ratio", absl::StrFormat("%.3f", log.disk_used_ratio)},
               {"disk_guard_ratio", absl::StrFormat("%.3f", limits_.disk_guard_ratio)}});
}

// The cause for which `slot` stops holding the log; empty = none.
std::string SlotTable::OverLimit(const Slot& slot, int64_t idle_micros, bool in_use, const LogView& log) const {
  if (slot.confirmed_lsn + 1 < log.first_lsn) return "wal_removed";
  if (log.bytes_behind(slot.confirmed_lsn) > limits_.max_retained_bytes) return "retained_bytes";
  const int64_t idle_max =
      slot.kind == SlotKind::kConsumer ? limits_.consumer_idle_micros : limits_.replica_idle_micros;
  // The owner of a copy is connected somewhere else.
  if (idle_max > 0 && !in_use && slot.origin.empty() && idle_micros > idle_max) return "idle_timeout";
  return "";
}

std::vector<Slot> ProvingSlots(const std::vector<Slot>& slots, uint64_t data_generation) {
  const bool count_copies = Failpoint("slots_count_copies");
  std::vector<Slot> proving;
  for (const Slot& slot : slots) {
    const bool served_here = slot.origin.empty() || count_copies;
    if (served_here && slot.data_generation == data_generation) proving.push_back(slot);
  }
  return proving;
}

}  // namespace towline::slots
