// Copies of another node's slots, and what becomes of them when this node takes over or hands over.

#include "slots/slot_copies.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "slots/slot_format.h"
#include "slots/slot_live.h"
#include "slots/slot_table.h"

namespace towline::slots {
namespace {

constexpr char kLostAtPrimary[] = "lost_at_primary";

bool IsCopy(const Slot& slot) { return !slot.origin.empty(); }

// Whether a slot that was served here, and that nobody uses here now, becomes the copy of one of the same name. It does
// if the two are one slot, by its creation: a primary served it before this node took it over, or this node before a
// primary did. Of replicas, which come with a position of their own, the one that is further is where its owner is.
// A consumer may go on behind its slot: that must not be moved by another consumer's progress.
bool GivesWay(const Slot& own, const SlotCopy& copy) {
  if (own.state == SlotState::kBootstrapping || own.state == SlotState::kRewinding) return false;
  if (own.created_time_ms == copy.created_time_ms) return true;
  if (own.kind != SlotKind::kReplica || copy.kind != SlotKind::kReplica) return false;
  return !HoldsLog(own) || copy.confirmed_lsn > own.confirmed_lsn;
}

// Whether a copy that was invalidated here has room to hold the log again.
bool HasRoom(const SlotCopy& copy, const LogView& log, const SlotLimits& limits) {
  if (limits.disk_guard_ratio > 0 && log.disk_used_ratio >= limits.disk_guard_ratio) return false;
  return log.bytes_behind(copy.confirmed_lsn) <= limits.max_retained_bytes / 4 * 3;
}

Invalidation Lost(const char* cause, const LogView& log, uint64_t now_ms, Lsn confirmed_lsn) {
  return {cause, log.durable_lsn, now_ms, confirmed_lsn + 1, log.first_lsn};
}

void Remove(const std::string& name, std::vector<Slot>* slots) {
  const auto is_it = [&name](const Slot& slot) { return slot.name == name; };
  slots->erase(std::remove_if(slots->begin(), slots->end(), is_it), slots->end());
}

}  // namespace

struct SlotTable::CopyChanges {
  std::map<std::string, Slot> put;  // new, or another than before
  std::set<std::string> drop;
  std::map<std::string, Lsn> rise;  // of copies that go on in their generation
  size_t left_out = 0;              // for want of room
};

std::vector<SlotCopy> SlotTable::SavedSlots(uint64_t data_generation) const {
  MutexLock lock(&mutex_);
  std::vector<SlotCopy> saved;
  saved.reserve(slots_.size());
  for (const auto& [name, live] : slots_) {
    const Slot& slot = live->slot;
    if (slot.temporary || IsCopy(slot)) continue;
    const bool holds = live->saved_holds && live->saved_data_generation == data_generation;
    saved.push_back({name, slot.kind, slot.generation, live->saved_confirmed_lsn, !holds, slot.created_time_ms,
                     slot.last_active_time_ms});
  }
  return saved;
}

absl::Status SlotTable::SaveCopies(const SlotCopies& all, const std::string& own_name, const LogView& log,
                                   uint64_t data_generation) {
  MutexLock save_lock(&save_mutex_);  // no session can begin meanwhile
  std::map<std::string, Slot> present;
  std::set<std::string> in_use;
  {
    MutexLock lock(&mutex_);
    if (all.term < taken_over_term_) return absl::OkStatus();
    for (const auto& [name, live] : slots_) {
      present[name] = live->slot;
      if (live->session_id != 0) in_use.insert(name);
    }
  }
  CopyChanges changes;
  size_t count = present.size();
  std::set<std::string> told;
  for (const SlotCopy& copy : all.slots) {
    if (copy.name == own_name) continue;  // this node will not serve itself
    told.insert(copy.name);
    const auto found = present.find(copy.name);
    if (found == present.end()) {
      if (count == kSlotsMax) {
        ++changes.left_out;
        continue;
      }
      ++count;
    } else if (found->second.temporary || in_use.contains(copy.name)) {
      continue;
    } else if (!IsCopy(found->second) && !GivesWay(found->second, copy)) {
      continue;
    }
    const Slot* const before = found == present.end() ? nullptr : &found->second;
    Slot made = MakeCopy(copy, all.origin, before, log, data_generation);
    if (before == nullptr || !IsContinuedBy(*before, made)) {
      changes.put[copy.name] = std::move(made);
    } else if (made.confirmed_lsn > before->confirmed_lsn) {
      changes.rise[copy.name] = made.confirmed_lsn;
    }
  }
  for (const auto& [name, slot] : present) {
    if (IsCopy(slot) && !told.contains(name) && !in_use.contains(name)) changes.drop.insert(name);
  }
  return SaveChanges(all.origin, changes);
}

// A slot as its copy; it holds no log that is not there, and stays without as long as this node's limits ask for it.
Slot SlotTable::MakeCopy(const SlotCopy& copy, const std::string& origin, const Slot* before, const LogView& log,
                         uint64_t data_generation) const {
  Slot slot;
  slot.name = copy.name;
  slot.kind = copy.kind;
  slot.origin = origin;
  slot.created_time_ms = copy.created_time_ms;
  slot.last_active_time_ms = copy.last_active_time_ms;
  StartGeneration(slot, copy.generation, data_generation, copy.confirmed_lsn);
  const bool was_lost = before != nullptr && IsCopy(*before) && !HoldsLog(*before) &&
                        before->generation == copy.generation && before->data_generation == data_generation;
  const char* cause = nullptr;
  if (copy.invalidated) {
    cause = kLostAtPrimary;
  } else if (copy.confirmed_lsn + 1 < log.first_lsn) {
    cause = "wal_removed";
  }
  if (cause == nullptr && (!was_lost || HasRoom(copy, log, limits_))) return slot;
  slot.state = SlotState::kInvalidated;
  slot.invalidation = was_lost ? before->invalidation : Lost(cause, log, NowMs(), copy.confirmed_lsn);
  return slot;
}

// Whether the only difference is progress.
bool SlotTable::IsContinuedBy(const Slot& before, const Slot& after) {
  return before.origin == after.origin && before.kind == after.kind && before.generation == after.generation &&
         before.data_generation == after.data_generation && before.state == after.state &&
         before.created_time_ms == after.created_time_ms;
}

absl::Status SlotTable::SaveChanges(const std::string& origin, const CopyChanges& changes) {
  {
    MutexLock lock(&mutex_);
    for (const auto& [name, confirmed_lsn] : changes.rise) {
      Slot& slot = FindLocked(name)->slot;
      slot.confirmed_lsn = slot.flushed_lsn = confirmed_lsn;
      dirty_ = true;
    }
  }
  if (changes.put.empty() && changes.drop.empty()) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(Commit([&changes](SlotImage& image) {
    for (const std::string& name : changes.drop) Remove(name, &image.slots);
    for (const auto& [name, slot] : changes.put) {
      Remove(name, &image.slots);
      image.slots.push_back(slot);
    }
    std::sort(image.slots.begin(), image.slots.end(), [](const Slot& a, const Slot& b) { return a.name < b.name; });
  }));
  size_t lost = 0;
  for (const auto& [name, slot] : changes.put) lost += HoldsLog(slot) ? 0 : 1;
  logger_.Log(changes.left_out == 0 ? LogLevel::kInfo : LogLevel::kWarning, "slot_copies_saved",
              {{"origin", origin},
               {"new_or_changed", changes.put.size()},
               {"without_log", lost},
               {"dropped", changes.drop.size()},
               {"left_out", changes.left_out}});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Slot>> SlotTable::TakeOver(Term term, const std::string& own_name, const LogView& log,
                                                      uint64_t data_generation) {
  MutexLock save_lock(&save_mutex_);
  std::vector<Slot> lost;
  size_t taken = 0;
  TOWLINE_RETURN_IF_ERROR(Commit([&](SlotImage& image) {
    Remove(own_name, &image.slots);
    for (Slot& slot : image.slots) {
      if (!IsCopy(slot)) continue;
      ++taken;
      slot.origin.clear();
      StartGeneration(slot, NewId(rng_), data_generation, std::min(slot.confirmed_lsn, log.durable_lsn));
      if (HoldsLog(slot) && slot.confirmed_lsn + 1 < log.first_lsn) {
        slot.state = SlotState::kInvalidated;
        slot.invalidation = Lost("wal_removed", log, NowMs(), slot.confirmed_lsn);
      }
      if (!HoldsLog(slot)) lost.push_back(slot);
    }
  }));
  {
    MutexLock lock(&mutex_);
    taken_over_term_ = std::max(taken_over_term_, term);
  }
  RestartIdleTimes();
  logger_.Log(lost.empty() ? LogLevel::kInfo : LogLevel::kWarning, "slots_taken_over",
              {{"term", term}, {"durable_lsn", log.durable_lsn}, {"slots", taken}, {"without_log", lost.size()}});
  return lost;
}

absl::Status SlotTable::HandOver(const std::string& origin) {
  MutexLock save_lock(&save_mutex_);
  std::vector<std::string> handed;
  TOWLINE_RETURN_IF_ERROR(Commit([&](SlotImage& image) {
    for (Slot& slot : image.slots) {
      if (IsCopy(slot) || slot.temporary) continue;
      slot.origin = origin;
      if (HoldsLog(slot)) slot.state = SlotState::kInactive;
      slot.bootstrap_reason.clear();
      handed.push_back(slot.name);
    }
  }));
  {
    MutexLock lock(&mutex_);
    for (const std::string& name : handed) {
      if (Live* live = FindLocked(name)) EndSessionLocked(*live);
    }
  }
  logger_.Log(LogLevel::kInfo, "slots_handed_over", {{"origin", origin}, {"slots", handed.size()}});
  return absl::OkStatus();
}

}  // namespace towline::slots
