// What a slot is, and what its owner and the log tell of it.

#ifndef TOWLINE_SLOTS_SLOT_H_
#define TOWLINE_SLOTS_SLOT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "common/types.h"

namespace towline::slots {

enum class SlotKind : uint8_t { kReplica = 1, kConsumer = 2 };
// kActive is never saved: after a restart it is kInactive.
enum class SlotState : uint8_t { kActive = 1, kInactive = 2, kBootstrapping = 3, kRewinding = 4, kInvalidated = 5 };

// Causes: wal_removed, retained_bytes, idle_timeout, disk_pressure, diverged, dropped; of copies also lost_at_primary.
struct Invalidation {
  std::string cause;
  Lsn at_lsn = 0;           // durable LSN at that moment
  uint64_t at_time_ms = 0;  // Unix
  Lsn needed_lsn = 0;       // first LSN that the slot needed
  Lsn oldest_lsn = 0;       // first retained LSN

  friend bool operator==(const Invalidation&, const Invalidation&) = default;
};

struct Slot {
  std::string name;
  SlotKind kind = SlotKind::kReplica;
  SlotState state = SlotState::kInactive;
  uint64_t generation = 0;       // of the slot; random, never 0
  uint64_t data_generation = 0;  // generation of this node's log that the LSNs speak of
  Lsn confirmed_lsn = 0;         // saved and live values differ until the next save
  Lsn received_lsn = 0;          // of the connection; never saved
  Lsn flushed_lsn = 0;
  Lsn applied_lsn = 0;                       // of the connection; never saved
  uint64_t owner_incarnation = 0;            // of the replica that last used it; 0 = none yet
  std::string bootstrap_reason;              // of the running full resync or rewind; empty otherwise
  std::optional<Invalidation> invalidation;  // present iff state is kInvalidated
  uint64_t created_time_ms = 0;
  uint64_t last_active_time_ms = 0;
  std::string origin;      // node id of the node that serves the slot of which this is a copy; empty = served here
  bool temporary = false;  // gone with its session; never saved

  friend bool operator==(const Slot&, const Slot&) = default;
};

struct SlotLimits {
  uint64_t max_retained_bytes = 16ull << 30;
  int64_t consumer_idle_micros = 24ll * 3600 * 1'000'000;  // 0 = off
  int64_t replica_idle_micros = 0;                         // 0 = off
  double disk_guard_ratio = 0;  // share of the disk in use from which on slots are given up, one by one; 0 = off
};

// Who holds a session. The same process may supersede its own older session.
struct SessionOwner {
  uint64_t process_instance = 0;
  uint64_t incarnation = 0;
};

struct Session {
  uint64_t id = 0;  // random, never 0
  std::string slot;
  uint64_t generation = 0;
};

// Progress as the owner reports it.
struct Ack {
  uint64_t session_id = 0;
  uint64_t generation = 0;
  Lsn received_lsn = 0;
  Lsn flushed_lsn = 0;
  Lsn applied_lsn = 0;
};

// The log as limits see it.
struct LogView {
  Lsn first_lsn = 0;
  Lsn durable_lsn = 0;
  std::function<uint64_t(Lsn)> bytes_behind;  // bytes of log behind an LSN
  uint64_t kept_bytes = 0;                    // log that stays behind the head whatever slots hold
  double disk_used_ratio = 0;                 // share of the disk that is in use, by whomever
  // Slots of which so many must go on holding the log, or a commit level cannot be reached: no want of space takes
  // them.
  std::set<std::string> needed_slots = {};
  size_t needed_count = 0;
};

}  // namespace towline::slots

#endif  // TOWLINE_SLOTS_SLOT_H_
